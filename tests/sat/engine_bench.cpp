// Runs instructions on `EngineTop`, see engine_top.py and engine_bench.py. Registers and memories start with random contents.

#include <cstdint>
#include <cstring>

#include "Vdut.h"
#include "verilated.h"

namespace {

struct Bench {
    VerilatedContext context;
    Vdut top{&context};
    uint64_t state;
    uint64_t strays = 0;  // cycles in which an idle engine reached for a memory

    explicit Bench(uint64_t seed) : state(seed) {
        context.randReset(2);
        context.randSeed(static_cast<int>(seed));
        quiet();
        reset(2);
    }

    void quiet() {
        top.start = 0;
        top.gemm_saturated = 0;
        top.vec_write_en = top.vec_read_en = top.chn_write_en = top.chn_read_en = 0;
    }

    void reset(int cycles) {
        top.rst = 1;
        for (int cycle = 0; cycle < cycles; ++cycle) tick();
        top.rst = 0;
    }

    uint32_t noise() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<uint32_t>(state >> 32);
    }

    void settle() {
        top.clk = 0;
        top.eval();
    }

    void tick() {
        settle();
        top.clk = 1;
        top.eval();
    }

    void idle() {
        for (unsigned word = 0; word < 16; ++word) top.instruction[word] = noise();
        settle();
        strays += top.busy;
        tick();
    }
};

}  // namespace

extern "C" {

void* bench_new(uint64_t seed) { return new Bench{seed}; }

void bench_delete(void* handle) { delete static_cast<Bench*>(handle); }

uint64_t bench_strays(void* handle) { return static_cast<Bench*>(handle)->strays; }

void bench_load(void* handle, uint32_t vec_words, const uint8_t* vec, uint32_t chn_words, const uint8_t* chn) {
    Bench& bench = *static_cast<Bench*>(handle);
    Vdut& top = bench.top;
    for (uint32_t word = 0; word < vec_words || word < chn_words; ++word) {
        top.vec_write_en = word < vec_words;
        top.chn_write_en = word < chn_words;
        top.vec_write_addr = top.chn_write_addr = word;
        if (word < vec_words) std::memcpy(&top.vec_write_data[0], vec + 16 * word, 16);
        if (word < chn_words) std::memcpy(&top.chn_write_data[0], chn + 16 * word, 16);
        bench.tick();
    }
    bench.quiet();
}

void bench_store(void* handle, uint32_t latency, uint32_t vec_words, uint8_t* vec, uint32_t chn_words, uint8_t* chn) {
    Bench& bench = *static_cast<Bench*>(handle);
    Vdut& top = bench.top;
    for (uint32_t cycle = 0; cycle < (vec_words > chn_words ? vec_words : chn_words) + latency; ++cycle) {
        top.vec_read_en = cycle < vec_words;
        top.chn_read_en = cycle < chn_words;
        top.vec_read_addr = top.chn_read_addr = cycle;
        bench.settle();
        if (cycle >= latency) {
            uint32_t word = cycle - latency;
            if (word < vec_words) std::memcpy(vec + 16 * word, &top.vec_read_data[0], 16);
            if (word < chn_words) std::memcpy(chn + 16 * word, &top.chn_read_data[0], 16);
        }
        bench.tick();
    }
    bench.quiet();
}

// Cycles from start to done, 0 where it does not come within `limit`; `report`: flag, an access outside, error.
uint32_t bench_run(void* handle, uint32_t engines, const uint8_t* instruction, uint32_t limit, uint32_t idle, uint8_t* report) {
    Bench& bench = *static_cast<Bench*>(handle);
    Vdut& top = bench.top;
    for (; idle; --idle) bench.idle();
    std::memcpy(&top.instruction[0], instruction, 64);
    top.start = engines;
    bench.tick();
    top.start = 0;
    bool missed = false;
    for (uint32_t cycles = 1; cycles <= limit; ++cycles) {
        bench.settle();
        missed |= top.missed;
        if (top.done) {
            report[2] = top.error;
            bench.tick();
            bench.settle();
            report[0] = top.saturated;
            report[1] = missed;
            return cycles;
        }
        bench.tick();
    }
    return 0;
}

// Starts an instruction and resets everything but the memories `cycles` later; what goes on all the same is a stray.
void bench_cut(void* handle, uint32_t engines, const uint8_t* instruction, uint32_t cycles, uint32_t idle) {
    Bench& bench = *static_cast<Bench*>(handle);
    Vdut& top = bench.top;
    std::memcpy(&top.instruction[0], instruction, 64);
    top.start = engines;
    bench.tick();
    top.start = 0;
    for (; cycles; --cycles) bench.tick();
    bench.reset(1);
    for (; idle; --idle) bench.idle();
}

// What GEMM's drain does to the flag.
void bench_gemm_event(void* handle) {
    Bench& bench = *static_cast<Bench*>(handle);
    bench.top.gemm_saturated = 1;
    bench.tick();
    bench.quiet();
}

}  // extern "C"
