#include <doctest/doctest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>

#include "base/field_lists.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;

namespace {

enum class Color : std::uint8_t { red = 3, green = 1 };  // values are not places in the list

struct Inner {
  double share = 0.5;
  std::uint32_t threads = 1;
  std::string file;

  template <class V>
  static void fields(V&& v) {
    v(field("share", &Inner::share, "A share.", above_up_to(0, 1)).note("0 turns it off"));
    v(field("threads", &Inner::threads, "Threads.", in(1, 64)).zero_means("all"));
    v(field("file", &Inner::file, "A file.").path().zero_means("no file"));
  }
};

struct Other {
  std::uint32_t threads = 2;

  template <class V>
  static void fields(V&& v) {
    v(field("threads", &Other::threads, "Threads.", in(1, 64)));
  }
};

struct Sample {
  std::uint64_t big = 0;
  bool on = false;
  Color color = Color::red;
  std::string name;
  std::size_t memory = 0;
  std::optional<std::int32_t> top;
  std::vector<std::int32_t> tokens;
  std::vector<std::pair<std::int32_t, float>> bias;
  Inner inner;
  Other other;

  template <class V>
  static void fields(V&& v) {
    v(field("big", &Sample::big, "Any."));
    v(field("on", &Sample::on, "A switch."));
    v(field("color", &Sample::color, "A word."));
    v(field("name", &Sample::name, "A text."));
    v(field("memory", &Sample::memory, "A size.", in(0, std::int64_t{1} << 40)).bytes());
    v(field("top", &Sample::top, "May be none.", at_least(-1)));
    v(field("tokens", &Sample::tokens, "Ids.", at_least(0)));
    v(field("bias", &Sample::bias, "Pairs."));
    v(part("inner", &Sample::inner, "A part."));
    v(part("other", &Sample::other, "Another."));
  }
};

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace

template <>
struct pagedcore::Words<Color> {
  static constexpr Word<Color> list[] = {{Color::red, "red"}, {Color::green, "green"}, {Color::green, "verde"}};
};

// rule: base.text-and-back
TEST_CASE("every kind of field is set from text, and read back as the same text") {
  Sample s;
  const auto round_trip = [&](const char* name, const char* text) {
    set_field(s, "option", name, text);
    return get_field(s, "option", name);
  };
  CHECK(round_trip("big", "18446744073709551615") == "18446744073709551615");
  CHECK(s.big == std::numeric_limits<std::uint64_t>::max());
  CHECK(round_trip("on", "true") == "true");
  CHECK(round_trip("on", "0") == "false");
  CHECK(round_trip("color", "verde") == "green");
  CHECK(s.color == Color::green);
  CHECK(round_trip("name", "a b=c") == "a b=c");
  CHECK(round_trip("memory", "1.5GiB") == "1610612736");
  CHECK(round_trip("memory", "1PiB") == "1125899906842624");
  CHECK(round_trip("memory", "2 KB") == "2000");
  CHECK(round_trip("memory", "7B") == "7");
  CHECK(round_trip("top", "5") == "5");
  CHECK(round_trip("top", "none") == "none");
  CHECK(round_trip("tokens", "1,2,3") == "1,2,3");
  CHECK(round_trip("tokens", "") == "");
  CHECK(round_trip("bias", "7:-inf,8:0.25") == "7:-inf,8:0.25");
  CHECK(round_trip("share", "0.1") == "0.1");
}

// rule: base.text-and-back
TEST_CASE("a name that stands in several parts means all of them; none is 0 where 0 has a meaning") {
  Sample s;
  set_field(s, "option", "threads", "9");
  CHECK(s.inner.threads == 9);
  CHECK(s.other.threads == 9);
  CHECK(field_names<Sample>().size() == 11);
  Inner inner;
  set_field(inner, "option", "threads", "none");
  CHECK(inner.threads == 0);
  set_field(inner, "option", "file", "nonesuch");
  CHECK(inner.file == "nonesuch");
  set_field(inner, "option", "file", "none");
  CHECK(inner.file.empty());
}

// rule: base.bad-text-is-named
TEST_CASE("what is no value of its field is refused by name, with what would be one") {
  Sample s;
  const auto set = [&](const char* name, const char* text) {
    return refusal([&] { set_field(s, "option", name, text); });
  };
  CHECK(set("big", "-1") == "big = '-1' is not a whole number from 0 on");
  CHECK(set("big", "18446744073709551616") != "accepted");
  CHECK(set("big", "1x") != "accepted");
  CHECK(set("big", "") != "accepted");
  CHECK(set("on", "yes") == "on = 'yes' is not true or false");
  CHECK(set("color", "blue") == "color = 'blue' is not one of red, green");
  for (const char* text :
       {"", "GiB", "1.5", "1XB", "1GIGB", "-1GiB", "1..5GiB", "9000000000TiB", "8EiB", "9223372036854775808"})
    CHECK_MESSAGE(set("memory", text) != "accepted", text);
  CHECK(set("tokens", "1,,2") != "accepted");
  CHECK(set("tokens", "1,") != "accepted");
  CHECK(set("bias", "7") != "accepted");
  CHECK(set("shape", "1") ==
        "option has no 'shape'; did you mean 'share'? It has big, on, color, name, memory, top, "
        "tokens, bias, share, threads, file");
  CHECK(set("", "1").starts_with("option has no ''; it has big, on"));  // no guess where nothing is alike
}

TEST_CASE("a field that somebody does not honour and that is not its default is found") {
  Inner inner;
  constexpr std::string_view honoured[] = {"share", "file"};
  CHECK(changed_beyond(inner, honoured) == nullptr);
  inner.share = 0.25;
  CHECK(changed_beyond(inner, honoured) == nullptr);
  inner.threads = 2;
  CHECK(changed_beyond(inner, honoured) == std::string("threads"));
  CHECK(changed_beyond(inner, {}) == std::string("share"));
}

// rule: base.ranges-have-ends
TEST_CASE("ranges: open and closed ends, infinity and NaN, optional values and lists") {
  const auto check = [](const std::function<void(Sample&)>& change) {
    Sample s;
    change(s);
    return refusal([&] { check_ranges(s, "option"); });
  };
  CHECK(check([](Sample&) {}) == "accepted");
  CHECK(check([](Sample& s) { s.inner.share = 1.5; }) ==
        "option share = 1.5 is out of range: it must lie in (0, 1]; 0 turns it off");
  CHECK(check([](Sample& s) { s.inner.share = std::numeric_limits<double>::quiet_NaN(); }) != "accepted");
  CHECK(check([](Sample& s) { s.inner.threads = 0; }) == "accepted");
  CHECK(check([](Sample& s) { s.inner.threads = 65; }) ==
        "option threads = 65 is out of range: it must lie in [1, 64], or be left out for all");
  CHECK(check([](Sample& s) { s.other.threads = 0; }) == "option threads = 0 is out of range: it must lie in [1, 64]");
  CHECK(check([](Sample& s) { s.top = -2; }) == "option top = -2 is out of range: it must be at least -1");
  CHECK(check([](Sample& s) { s.tokens = {3, -4}; }) == "option tokens = -4 is out of range: it must be at least 0");
  CHECK(to_text(OutOfRange{"threads", "-1", type_range_text<std::uint8_t>(), "all", nullptr}) ==
        "threads = -1 is out of range: it must lie in [0, 255], or be left out for all");
  CHECK(check([](Sample& s) { s.memory = (std::size_t{1} << 40) + 1; }) != "accepted");
}
