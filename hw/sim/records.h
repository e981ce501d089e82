// Plain records that cross the border to Python; hw/sim/records.py mirrors them field by field.
#pragma once

#include <cstdint>

enum Channel { AW, W, B, AR, R, CONTROL, CHANNELS };
enum Response : uint8_t { OKAY = 0, SLVERR = 2, DECERR = 3 };
constexpr uint64_t NEVER = INT64_MAX;
constexpr unsigned BEAT_BYTES = 16;

struct Config {
    uint64_t memory_base, memory_bytes;  // bytes; memory answers in [base, base + bytes)
    uint64_t stall_seed, state_seed;
    uint32_t read_latency, write_latency;   // cycles
    uint32_t read_interval, read_beats;     // so many beats take so many cycles
    uint32_t write_interval, write_beats;
    uint32_t stall[CHANNELS];               // probability per cycle, in 1/256
    uint32_t trace_writes, random_state;    // flags
};

struct FaultRange {
    uint64_t start, end;  // bytes, end excluded
    uint64_t response;
};

struct InstructionRecord {
    uint64_t issue, retire;  // cycles; NEVER where it has not retired
    uint32_t index, reserved;
};

struct MemoryWrite {
    uint64_t cycle, address;  // address in bytes, a multiple of 16
    uint32_t index;           // instruction
    uint16_t manager, strobe;
    uint8_t data[BEAT_BYTES];
};

struct ChipWrite {
    uint64_t cycle;
    uint32_t index, space, address, reserved;  // address in words of 16 bytes
    uint8_t data[BEAT_BYTES];
};

struct BusError {
    uint64_t cycle, address;  // cycle in which the address was accepted; address of the first beat at fault
    uint32_t manager;
    uint16_t is_write, response;
};
