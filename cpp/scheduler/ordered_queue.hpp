// Elements in an order, linked through themselves: nothing here can fail.
//
// A zip tree (Tarjan, Levy and Timmel, "Zip Trees", 2018) whose elements are also linked as a list: insertion and
// removal take O(log size) comparisons, and walking costs what a list costs. An element's rank is drawn by hashing a
// counter, so the shape of the tree does not depend on the order of the elements.
#pragma once

#include <bit>
#include <cstdint>

namespace pagedcore::sched {

/// An element's links in one queue.
template <class T>
struct QueuePlace {
  T* prev = nullptr;
  T* next = nullptr;
  T* left = nullptr;
  T* right = nullptr;
  int rank = 0;
};

/// `kBefore(a, b)`: a strict order of all elements that are ever in the queue together. An element's place in it may
/// change only while it is in no queue.
template <class T, QueuePlace<T> T::*kPlace, bool (*kBefore)(const T&, const T&) noexcept>
class OrderedQueue {
 public:
  OrderedQueue() = default;
  OrderedQueue(const OrderedQueue&) = delete;
  OrderedQueue& operator=(const OrderedQueue&) = delete;

  T* front() const noexcept { return front_; }
  T* back() const noexcept { return back_; }
  std::uint32_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  static T* next(const T& element) noexcept { return (element.*kPlace).next; }
  static T* prev(const T& element) noexcept { return (element.*kPlace).prev; }

  void insert(T& element) noexcept {
    QueuePlace<T>& place = element.*kPlace;
    place.rank = draw_rank();
    T *before = nullptr, *behind = nullptr;  // the neighbours: the last that the way down passes on either side
    T** link = &root_;
    while (*link != nullptr && ((*link)->*kPlace).rank >= place.rank) {
      T& at = **link;
      const bool is_before = kBefore(at, element);
      (is_before ? before : behind) = &at;
      link = is_before ? &(at.*kPlace).right : &(at.*kPlace).left;
    }
    // What is below is unzipped into those before the element and those behind it.
    T* rest = *link;
    *link = &element;
    T **left = &place.left, **right = &place.right;
    while (rest != nullptr) {
      if (kBefore(*rest, element)) {
        before = *left = rest;
        left = &(rest->*kPlace).right;
        rest = *left;
      } else {
        behind = *right = rest;
        right = &(rest->*kPlace).left;
        rest = *right;
      }
    }
    *left = *right = nullptr;
    place.prev = before;
    place.next = behind;
    (before != nullptr ? (before->*kPlace).next : front_) = &element;
    (behind != nullptr ? (behind->*kPlace).prev : back_) = &element;
    ++size_;
  }

  void erase(T& element) noexcept {
    QueuePlace<T>& place = element.*kPlace;
    T** link = &root_;
    while (*link != &element) link = kBefore(**link, element) ? &((*link)->*kPlace).right : &((*link)->*kPlace).left;
    T *left = place.left, *right = place.right;  // zipped into one
    while (left != nullptr && right != nullptr) {
      if ((left->*kPlace).rank >= (right->*kPlace).rank) {
        *link = left;
        link = &(left->*kPlace).right;
        left = *link;
      } else {
        *link = right;
        link = &(right->*kPlace).left;
        right = *link;
      }
    }
    *link = left != nullptr ? left : right;
    (place.prev != nullptr ? (place.prev->*kPlace).next : front_) = place.next;
    (place.next != nullptr ? (place.next->*kPlace).prev : back_) = place.prev;
    place = {};
    --size_;
  }

 private:
  /// At least r with a chance of 2^-r.
  int draw_rank() noexcept {
    std::uint64_t hash = ++drawn_ * 0x9e3779b97f4a7c15u;
    hash = (hash ^ (hash >> 32)) * 0x9fb21c651e98df25u;
    return std::countl_zero(hash | 1u);
  }

  T* root_ = nullptr;
  T* front_ = nullptr;
  T* back_ = nullptr;
  std::uint64_t drawn_ = 0;
  std::uint32_t size_ = 0;
};

}  // namespace pagedcore::sched
