// What the core may not do on its buses: counted, and the first one described.
#pragma once

#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <string>

class Violations {
  public:
    uint64_t count = 0;
    std::string first;

    void report(uint64_t cycle, const char* format, ...) __attribute__((format(printf, 3, 4))) {
        if (count++) return;
        char words[400], line[480];
        va_list arguments;
        va_start(arguments, format);
        std::vsnprintf(words, sizeof words, format, arguments);
        va_end(arguments);
        std::snprintf(line, sizeof line, "cycle %" PRIu64 ": %s", cycle, words);
        first = line;
    }
};

// VALID, once raised, and what goes with it hold until READY.
template <typename Payload>
class HoldCheck {
  public:
    void observe(Violations& violations, uint64_t cycle, const char* channel, unsigned bus, bool valid, bool ready,
                 const Payload& payload) {
        if (waiting_) {
            if (!valid)
                violations.report(cycle, "%s of bus %u dropped VALID before READY", channel, bus);
            else if (!(payload == payload_))
                violations.report(cycle, "%s of bus %u changed its payload before READY", channel, bus);
        }
        waiting_ = valid && !ready;
        if (waiting_) payload_ = payload;
    }
    void clear() { waiting_ = false; }

  private:
    bool waiting_ = false;
    Payload payload_{};
};

// Seeded xorshift64*: one stream per channel, so that the stalls of one do not move those of another.
class StallSource {
  public:
    void seed(uint64_t seed, uint32_t probability) {
        // splitmix64 makes unrelated states of neighbouring seeds; xorshift must not start at zero.
        uint64_t mixed = (seed + 1) * 0x9E3779B97F4A7C15u;
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9u;
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EBu;
        state_ = (mixed ^ mixed >> 31) | 1;
        probability_ = probability;
    }
    bool draw() {
        if (!probability_) return false;
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return (state_ * 0x2545F4914F6CDD1Du >> 56) < probability_;
    }

  private:
    uint64_t state_ = 1;
    uint32_t probability_ = 0;
};
