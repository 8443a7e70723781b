#include "engine/output_queue.hpp"

#include <algorithm>
#include <iterator>
#include <new>
#include <utility>

namespace pagedcore {
namespace {

/// Room for `more` elements, growing by half: request_memory counts with that.
template <class T>
void make_room(std::vector<T>& list, std::size_t more) {
  const std::size_t size = list.size() + more;
  if (size > list.capacity()) list.reserve(std::max(size, list.capacity() + list.capacity() / 2));
}

template <class T>
void append(std::vector<T>& list, const std::vector<T>& more) noexcept {
  list.insert(list.end(), more.begin(), more.end());  // there is room
}

/// Throws std::bad_alloc; then `unread` says what it said.
void join(EngineOutput& unread, EngineOutput& news) {
  LogprobTable &table = unread.logprobs, &added = news.logprobs;
  if (table.empty()) table.width = added.width;
  make_room(unread.tokens, news.tokens.size());
  make_room(table.chosen, added.chosen.size());
  make_room(table.counts, added.counts.size());
  make_room(table.others, added.others.size());
  append(unread.tokens, news.tokens);
  append(table.chosen, added.chosen);
  append(table.counts, added.counts);
  append(table.others, added.others);
  news.tokens = std::move(unread.tokens);
  news.logprobs = std::move(table);
  if (news.prompt_logprobs.empty()) news.prompt_logprobs = std::move(unread.prompt_logprobs);
  unread = std::move(news);
}

}  // namespace

void OutputQueue::put(News& from, News::iterator output, Unread& unread) noexcept {
  if (output->sample < unread.size()) {
    EngineOutput*& last = unread[output->sample];
    const bool overtakes = output->last && unread.size() > 1 && last != &outputs.back();  // what other samples brought
    if (last != nullptr && !overtakes) {
      try {
        join(*last, *output);
        from.erase(output);
        return;
      } catch (const std::bad_alloc&) {  // then it comes by itself
      }
    }
    last = &*output;
  }
  outputs.splice(outputs.end(), from, output);
}

std::vector<EngineOutput> OutputQueue::take(News& emptied) {
  std::vector<EngineOutput> taken;
  for (std::size_t count = outputs.size(); count > 0; count /= 2) {
    try {
      taken.reserve(count);
      break;
    } catch (const std::bad_alloc&) {
      if (count == 1) throw;
    }
  }
  while (taken.size() < taken.capacity() && !outputs.empty()) {
    taken.push_back(std::move(outputs.front()));
    emptied.splice(emptied.end(), outputs, outputs.begin());
  }
  return taken;
}

void OutputQueue::raise() noexcept {
  if (wake_up) wake_up->raise();
}

void OutputQueue::call_back() noexcept {
  const std::lock_guard lock(calling);
  if (callback) callback();
}

}  // namespace pagedcore
