#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "io/json.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;
using io::JsonReader;

namespace {

std::string read_string(std::string_view text) {
  JsonReader json(text, "t");
  std::string value = json.string();
  json.finish();
  return value;
}

std::vector<std::uint64_t> read_array(std::string_view text) {
  JsonReader json(text, "t");
  std::vector<std::uint64_t> values;
  json.array([&] { values.push_back(json.unsigned_integer()); });
  json.finish();
  return values;
}

std::string read_members(std::string_view text) {
  JsonReader json(text, "t");
  std::string members;
  json.object([&](const std::string& key) { members += key + "=" + json.string() + ";"; });
  json.finish();
  return members;
}

}  // namespace

TEST_CASE("strings") {
  CHECK(read_string(R"("")").empty());
  CHECK(read_string(R"( "a\"\\\/\b\f\n\r\t" )") == "a\"\\/\b\f\n\r\t");
  CHECK(read_string(R"("\u0041\u00e9\u20AC\ud83d\ude00")") == "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
  CHECK(read_string("\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"") == "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
  CHECK(read_string(R"("\u0000")") == std::string(1, '\0'));

  for (const char* bad : {"", "\"", "\"a", "a\"", "'a'", R"("\x")", R"("\u12")", R"("\u12g4")", R"("\ud83d")",
                          R"("\ud83dA")", R"("\ud83dA")", R"("\ude00")", "\"\n\"", "\"a\" b", "\"\\", "\"\\u"}) {
    INFO(bad);
    CHECK_THROWS_AS(read_string(bad), Corrupt);
  }
}

TEST_CASE("strings are well-formed UTF-8") {
  // A continuation alone, overlong forms, a surrogate, above U+10FFFF, cut short.
  for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xc3", "\xe2\x82", "\xf0\x9f\x98"}) {
    CHECK_THROWS_AS(read_string("\"" + std::string(bad) + "\""), Corrupt);
    CHECK_THROWS_AS(io::json_quote(bad), InvalidArgument);
  }
}

TEST_CASE("unsigned integers") {
  CHECK(read_array("[]").empty());
  CHECK(read_array(" [ 0 , 18446744073709551615 ] ") == std::vector<std::uint64_t>{0, 18446744073709551615u});
  for (const char* bad : {"[18446744073709551616]", "[99999999999999999999]", "[-1]", "[01]", "[1.0]", "[1e3]", "[1,]",
                          "[,1]", "[1", "[1 2]", "[true]", "[[1]]", "[1]]"}) {
    INFO(bad);
    CHECK_THROWS_AS(read_array(bad), Corrupt);
  }
}

TEST_CASE("objects") {
  CHECK(read_members("{}") == "");
  CHECK(read_members(" { \"a\" : \"1\" ,\n\"b\":\"2\"}\t") == "a=1;b=2;");
  for (const char* bad : {"", "{", "{\"a\"}", "{\"a\":}", "{\"a\":\"1\",}", "{\"a\":1}", "{a:\"1\"}", "{\"a\":\"1\"} x",
                          "[]", "{\"a\":\"1\" \"b\":\"2\"}"}) {
    INFO(bad);
    CHECK_THROWS_AS(read_members(bad), Corrupt);
  }
  CHECK_THROWS_WITH_AS(read_members(R"({"a":"1","\u0061":"2"})"), doctest::Contains("t: the key 'a' is repeated"),
                       Corrupt);
}

TEST_CASE("what is quoted is read back") {
  const std::string text = std::string("a\"\\/\n\x01\x7f", 7) + '\0' + "\xc3\xa9\xf0\x9f\x98\x80";
  CHECK(read_string(io::json_quote(text)) == text);
}
