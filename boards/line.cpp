// A board's top with something at the other end of its serial line: sends bytes bit by bit, and hears what comes back.
// One evaluation of a rising clock edge is one cycle. Bit times are in 1/256 of a cycle, so that the two ends may disagree.
#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "Vdut.h"
#include "verilated.h"

namespace {

constexpr uint64_t FINE = 256;
constexpr unsigned DATA_BITS = 8;

// Sends queued bytes, 8N1, back to back.
class Sender {
public:
    explicit Sender(uint64_t bit_time) : bit_time_(bit_time) {}
    std::deque<uint8_t> queue;

    bool idle() const { return !sending_ && queue.empty(); }
    bool level(uint64_t cycle) {
        const uint64_t now = cycle * FINE;
        if (sending_ && now >= start_ + (DATA_BITS + 2) * bit_time_) {
            sending_ = false;
            next_ = start_ + (DATA_BITS + 2) * bit_time_;
        }
        if (!sending_ && !queue.empty()) {
            // The next byte begins where the last one ended, if it was there by then.
            start_ = now < next_ + FINE ? next_ : now;
            frame_ = uint32_t(queue.front()) << 1 | 1u << (DATA_BITS + 1);
            queue.pop_front();
            sending_ = true;
        }
        return sending_ && now >= start_ ? frame_ >> (now - start_) / bit_time_ & 1 : true;
    }

private:
    uint64_t bit_time_, start_ = 0, next_ = 0;
    uint32_t frame_ = 0;
    bool sending_ = false;
};

// Hears bytes, 8N1, in the middle of each bit.
class Hearer {
public:
    explicit Hearer(uint64_t bit_time) : bit_time_(bit_time) {}
    std::vector<uint8_t> bytes;
    uint64_t broken = 0;

    void sample(bool level, uint64_t cycle) {
        const uint64_t now = cycle * FINE;
        if (!hearing_) {
            if (before_ && !level) hearing_ = true, next_ = now + bit_time_ / 2, bit_ = 0, value_ = 0;
        } else if (now >= next_) {
            take(level);
            next_ += bit_time_;
        }
        before_ = level;
    }

private:
    void take(bool level) {
        if (bit_ == 0) {
            hearing_ = !level;
        } else if (bit_ <= DATA_BITS) {
            value_ |= level << (bit_ - 1);
        } else {
            if (level) bytes.push_back(uint8_t(value_));
            else ++broken;
            hearing_ = false;
        }
        ++bit_;
    }
    uint64_t bit_time_, next_ = 0;
    unsigned bit_ = 0, value_ = 0;
    bool hearing_ = false, before_ = true;
};

struct Line {
    Line(uint64_t bit_time, int seed) : sender(bit_time), hearer(bit_time) {
        context.randReset(2);
        context.randSeed(seed);
        top = std::make_unique<Vdut>(&context, "top");
        top->clk_25mhz = 0;
        top->reset_button = 0;
        top->ftdi_txd = 1;
        top->eval();
    }
    void step() {
        top->ftdi_txd = sender.level(cycle);
        top->clk_25mhz = 1;
        top->eval();
        top->clk_25mhz = 0;
        top->eval();
        hearer.sample(top->ftdi_rxd, cycle);
        ++cycle;
    }
    VerilatedContext context;
    Sender sender;
    Hearer hearer;
    std::unique_ptr<Vdut> top;
    uint64_t cycle = 0;
};

}  // namespace

extern "C" {

void* line_open(uint64_t bit_time, int seed) { return new Line(bit_time, seed); }

void line_close(void* handle) { delete static_cast<Line*>(handle); }

void line_send(void* handle, const uint8_t* data, uint64_t count) {
    auto& line = *static_cast<Line*>(handle);
    line.sender.queue.insert(line.sender.queue.end(), data, data + count);
}

// Runs until everything is sent and `count` bytes are heard and not yet taken, at most `max_cycles`; returns the cycles run.
uint64_t line_run(void* handle, uint64_t count, uint64_t max_cycles) {
    auto& line = *static_cast<Line*>(handle);
    const uint64_t start = line.cycle;
    while (line.cycle - start < max_cycles && (line.hearer.bytes.size() < count || !line.sender.idle())) line.step();
    return line.cycle - start;
}

// Takes at most `count` bytes that were heard; returns how many.
uint64_t line_take(void* handle, uint8_t* data, uint64_t count) {
    auto& bytes = static_cast<Line*>(handle)->hearer.bytes;
    count = count < bytes.size() ? count : bytes.size();
    std::copy(bytes.begin(), bytes.begin() + count, data);
    bytes.erase(bytes.begin(), bytes.begin() + count);
    return count;
}

void line_button(void* handle, int pressed) { static_cast<Line*>(handle)->top->reset_button = pressed; }

uint32_t line_lamps(void* handle) {
    auto& top = *static_cast<Line*>(handle)->top;
    return top.led | top.wifi_gpio0 << 8;
}

uint64_t line_broken(void* handle) { return static_cast<Line*>(handle)->hearer.broken; }

uint64_t line_cycle(void* handle) { return static_cast<Line*>(handle)->cycle; }
}
