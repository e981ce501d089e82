// Work on several threads: each takes the next item until there is none.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

constexpr int64_t ALONE = 1 << 17;  // smaller tensors are not worth starting threads

// Runs worker(next) on up to `threads` threads; each call of next() gives one of 0..count-1 that no other call gave, or -1 at the end.
template <class Worker> void together(int64_t count, int threads, Worker worker) {
    std::atomic<int64_t> given{0};
    const auto next = [&] {
        const int64_t item = given++;
        return item < count ? item : -1;
    };
    std::vector<std::thread> helpers;
    for (int i = 1; i < std::min<int64_t>(threads, count); i++) helpers.emplace_back([&] { worker(next); });
    worker(next);
    for (auto &helper : helpers) helper.join();
}

// Calls body(i) for i in 0..count-1.
template <class Body> void share(int64_t count, int threads, Body body) {
    together(count, threads, [&](const auto &next) { for (int64_t item; (item = next()) >= 0;) body(item); });
}
