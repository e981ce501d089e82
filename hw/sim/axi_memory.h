// The AXI4 memory behind one manager of the core. Timing is a definition, not a fit:
//   * AW and AR are ready in every cycle but for stalls, W when the slot of the beat before is over.
//   * A read burst whose AR is accepted in cycle t has its first beat valid in cycle t + read_latency, or when the slot of
//     the beat before is over. A beat ends not before it is accepted; the next is valid in the cycle after.
//   * A beat has a slot of read_interval / read_beats cycles (write_interval / write_beats), at least 1. Slots follow each
//     other without rounding: a beat comes in the first cycle that begins in or after the end of the slot before. One that
//     comes a cycle or more later than that begins a slot of its own.
//   * With its last data beat accepted in cycle t, and its AW not later, a write has B valid in cycle t + write_latency,
//     or in the cycle after the previous B was accepted if that is later. Bursts are served in the order of acceptance.
//   * Stalls only add to this: a cycle withheld on READY, or on raising VALID, which is then held.
// Ordering is the harshest that AXI allows: a read takes its data when AR is accepted, a write lands when B is raised.
// So a core that reads before its write is acknowledged gets the old bytes. Managers share the bytes, not the timing.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <vector>

#include "Vdut.h"
#include "checker.h"
#include "records.h"

// Slots of beats in one direction, in units of 1 / beats of a cycle.
class Slots {
  public:
    Slots(uint64_t interval, uint64_t beats) : interval_(interval), beats_(beats) {}
    void restart() { free_ = 0; }
    bool open(uint64_t cycle) const { return cycle * beats_ >= free_; }
    void take(uint64_t cycle) {
        if (cycle * beats_ >= free_ + beats_) free_ = cycle * beats_;
        free_ += interval_;
    }

  private:
    uint64_t interval_, beats_, free_ = 0;
};

struct ManagerPins {
    CData *awid, *awlen, *awsize, *awburst, *awlock, *awcache, *awprot, *awvalid, *awready;
    CData *arid, *arlen, *arsize, *arburst, *arlock, *arcache, *arprot, *arvalid, *arready;
    QData *awaddr, *araddr;
    VlWide<4>*wdata, *rdata;
    SData* wstrb;
    CData *wlast, *wvalid, *wready;
    CData *bid, *bresp, *bvalid, *bready;
    CData *rid, *rresp, *rlast, *rvalid, *rready;
};

// State that all managers share.
struct Shared {
    Config config;
    uint8_t* bytes;
    uint64_t cycle = 0;
    uint64_t silent_from = NEVER;
    uint32_t index = UINT32_MAX;  // instruction issued last
    std::vector<FaultRange> faults;
    std::vector<BusError> errors;
    std::vector<MemoryWrite> writes;
    Violations violations;

    bool silent() const { return cycle >= silent_from; }

    Response response(uint64_t address) const {
        const uint64_t offset = address - config.memory_base;
        if (address < config.memory_base || offset >= config.memory_bytes || config.memory_bytes - offset < BEAT_BYTES)
            return DECERR;
        for (const FaultRange& range : faults)
            if (address < range.end && address + BEAT_BYTES > range.start) return Response(range.response);
        return OKAY;
    }
};

struct AddressPhase {
    uint64_t address;
    CData id, length, size, burst, lock, cache, prot;
    bool operator==(const AddressPhase&) const = default;
};

struct WriteBeat {
    uint8_t data[BEAT_BYTES];
    uint16_t strobe;
    bool last;
    bool operator==(const WriteBeat&) const = default;
};

class AxiMemory {
  public:
    uint64_t stalled[CHANNELS] = {};

    AxiMemory(Shared& shared, const ManagerPins& pins, unsigned number) : shared_(shared), pins_(pins), number_(number),
          read_slots_(shared.config.read_interval, shared.config.read_beats),
          write_slots_(shared.config.write_interval, shared.config.write_beats) {
        for (unsigned channel = 0; channel < CHANNELS; ++channel)
            stalls_[channel].seed(shared.config.stall_seed * 64 + number * 8 + channel, shared.config.stall[channel]);
    }

    void reset() {
        reads_.clear();
        writes_.clear();
        beats_.clear();
        answers_.clear();
        read_valid_ = answer_valid_ = false;
        read_slots_.restart();
        write_slots_.restart();
        *pins_.awready = *pins_.wready = *pins_.arready = *pins_.bvalid = *pins_.rvalid = 0;
        hold_aw_.clear();
        hold_w_.clear();
        hold_ar_.clear();
    }

    void check_reset() {
        if (*pins_.awvalid || *pins_.wvalid || *pins_.arvalid)
            shared_.violations.report(shared_.cycle, "manager %u raises VALID during reset", number_);
    }

    // Before the clock edge: what the memory shows the core in this cycle.
    void drive() {
        const bool silent = shared_.silent();
        drive_ready(pins_.awready, AW, silent);
        drive_ready(pins_.arready, AR, silent);
        drive_ready(pins_.wready, W, silent || !write_slots_.open(shared_.cycle));
        if (!silent) {
            if (!read_valid_ && !reads_.empty()) raise_read();
            if (!answer_valid_ && !answers_.empty()) raise_answer();
        }
        *pins_.rvalid = read_valid_;
        *pins_.bvalid = answer_valid_;
    }

    // With all signals settled: what is accepted in this cycle.
    void observe() {
        if (read_valid_ && *pins_.rready) take_read();
        if (answer_valid_ && *pins_.bready) take_answer();
        if (observe_address("AR", AR, hold_ar_, *pins_.arvalid, *pins_.arready, read_phase())) accept_read();
        if (observe_address("AW", AW, hold_aw_, *pins_.awvalid, *pins_.awready, write_phase())) accept_write();
        observe_write_data();
        while (!writes_.empty() && !beats_.empty()) match_beat();
    }

  private:
    struct Read {
        uint64_t due;
        unsigned beats, next;
        CData id;
        uint8_t responses[256];
        uint8_t data[256 * BEAT_BYTES];
    };
    struct StoredBeat {
        WriteBeat beat;
        uint64_t cycle;
        uint32_t index;
    };
    struct Write {
        uint64_t address, due;
        unsigned beats;
        CData id;
        Response response;
        std::vector<WriteBeat> data;
    };

    Shared& shared_;
    const ManagerPins pins_;
    const unsigned number_;
    StallSource stalls_[CHANNELS];
    bool withheld_[CHANNELS] = {};
    std::deque<Read> reads_;
    std::deque<Write> writes_, answers_;  // waiting for data, for their answer
    std::deque<StoredBeat> beats_;
    bool read_valid_ = false, answer_valid_ = false;
    Slots read_slots_, write_slots_;
    HoldCheck<AddressPhase> hold_aw_, hold_ar_;
    HoldCheck<WriteBeat> hold_w_;

    AddressPhase read_phase() const {
        return {*pins_.araddr,  *pins_.arid,   *pins_.arlen,   *pins_.arsize,
                *pins_.arburst, *pins_.arlock, *pins_.arcache, *pins_.arprot};
    }
    AddressPhase write_phase() const {
        return {*pins_.awaddr,  *pins_.awid,   *pins_.awlen,   *pins_.awsize,
                *pins_.awburst, *pins_.awlock, *pins_.awcache, *pins_.awprot};
    }

    void drive_ready(CData* ready, Channel channel, bool closed) {
        withheld_[channel] = stalls_[channel].draw() && !closed;
        *ready = !closed && !withheld_[channel];
    }

    void raise_read() {
        Read& read = reads_.front();
        if (shared_.cycle < read.due || !read_slots_.open(shared_.cycle)) return;
        if (stalls_[R].draw()) {
            ++stalled[R];
            return;
        }
        read_valid_ = true;
        read_slots_.take(shared_.cycle);
        std::memcpy(pins_.rdata->data(), read.data + read.next * BEAT_BYTES, BEAT_BYTES);
        *pins_.rresp = read.responses[read.next];
        *pins_.rlast = read.next + 1 == read.beats;
        *pins_.rid = read.id;
    }

    void take_read() {
        read_valid_ = false;
        if (++reads_.front().next == reads_.front().beats) reads_.pop_front();
    }

    void raise_answer() {
        const Write& write = answers_.front();
        if (shared_.cycle < write.due) return;
        if (stalls_[B].draw()) {
            ++stalled[B];
            return;
        }
        answer_valid_ = true;
        *pins_.bresp = write.response;
        *pins_.bid = write.id;
        for (unsigned beat = 0; beat < write.beats; ++beat) land(write.address + beat * BEAT_BYTES, write.data[beat]);
    }

    void take_answer() {
        answer_valid_ = false;
        answers_.pop_front();
    }

    void land(uint64_t address, const WriteBeat& beat) {
        if (shared_.response(address) != OKAY) return;
        uint8_t* target = shared_.bytes + (address - shared_.config.memory_base);
        for (unsigned lane = 0; lane < BEAT_BYTES; ++lane)
            if (beat.strobe >> lane & 1) target[lane] = beat.data[lane];
    }

    bool observe_address(const char* name, Channel channel, HoldCheck<AddressPhase>& hold, bool valid, bool ready,
                         const AddressPhase& phase) {
        hold.observe(shared_.violations, shared_.cycle, name, number_, valid, ready, phase);
        stalled[channel] += valid && withheld_[channel];
        if (!valid || !ready) return false;
        check_burst(name, phase);
        return true;
    }

    void check_burst(const char* name, const AddressPhase& phase) {
        const auto report = [&](const char* rule) {
            shared_.violations.report(shared_.cycle, "%s of bus %u at address 0x%" PRIx64 ", length %u: %s", name, number_,
                                      phase.address, phase.length + 1u, rule);
        };
        if (phase.burst != 1) report("burst type must be INCR");
        if (phase.size != 4) report("beats must be of 16 bytes");
        if (phase.address % BEAT_BYTES) report("address must be a multiple of 16");
        if (phase.address % 4096 + (phase.length + 1) * BEAT_BYTES > 4096) report("burst must not cross 4 KB");
    }

    void accept_read() {
        Read& read = reads_.emplace_back();
        const uint64_t start = *pins_.araddr & ~uint64_t(BEAT_BYTES - 1);
        read.due = shared_.cycle + shared_.config.read_latency;
        read.beats = *pins_.arlen + 1u;
        read.next = 0;
        read.id = *pins_.arid;
        for (unsigned beat = 0; beat < read.beats; ++beat) {
            const uint64_t address = start + beat * BEAT_BYTES;
            const Response response = shared_.response(address);
            uint8_t* data = read.data + beat * BEAT_BYTES;
            if (response == OKAY)
                std::memcpy(data, shared_.bytes + (address - shared_.config.memory_base), BEAT_BYTES);
            else
                std::memset(data, 0xEE, BEAT_BYTES);
            read.responses[beat] = response;
        }
        worst(start, read.beats, false);
    }

    void accept_write() {
        Write& write = writes_.emplace_back();
        write.address = *pins_.awaddr & ~uint64_t(BEAT_BYTES - 1);
        write.beats = *pins_.awlen + 1u;
        write.id = *pins_.awid;
        write.response = worst(write.address, write.beats, true);
        write.data.reserve(write.beats);
    }

    // The worst answer of a burst; one that is not OKAY is recorded.
    Response worst(uint64_t start, unsigned beats, bool is_write) {
        Response result = OKAY;
        uint64_t where = start;
        for (unsigned beat = 0; beat < beats; ++beat) {
            const Response response = shared_.response(start + beat * BEAT_BYTES);
            if (result == OKAY && response != OKAY) where = start + beat * BEAT_BYTES;
            result = std::max(result, response);
        }
        if (result != OKAY) shared_.errors.push_back({shared_.cycle, where, number_, is_write, result});
        return result;
    }

    void observe_write_data() {
        const bool valid = *pins_.wvalid, ready = *pins_.wready;
        WriteBeat beat{};
        if (valid) {
            std::memcpy(beat.data, pins_.wdata->data(), BEAT_BYTES);
            beat.strobe = *pins_.wstrb;
            beat.last = *pins_.wlast;
        }
        hold_w_.observe(shared_.violations, shared_.cycle, "W", number_, valid, ready, beat);
        stalled[W] += valid && withheld_[W];
        if (!valid || !ready) return;
        write_slots_.take(shared_.cycle);
        beats_.push_back({beat, shared_.cycle, shared_.index});
    }

    // Joins the oldest data beat with the burst that it belongs to; W may run ahead of AW.
    void match_beat() {
        Write& write = writes_.front();
        const StoredBeat stored = beats_.front();
        beats_.pop_front();
        const uint64_t address = write.address + write.data.size() * BEAT_BYTES;
        write.data.push_back(stored.beat);
        const bool last = write.data.size() == write.beats;
        if (stored.beat.last != last)
            shared_.violations.report(shared_.cycle, "W of bus %u has WLAST %d in beat %zu of a burst of %u", number_,
                                      stored.beat.last, write.data.size(), write.beats);
        if (shared_.config.trace_writes) log(address, stored);
        if (!last) return;
        write.due = shared_.cycle + shared_.config.write_latency;
        answers_.push_back(std::move(write));
        writes_.pop_front();
    }

    void log(uint64_t address, const StoredBeat& stored) {
        MemoryWrite& entry = shared_.writes.emplace_back();
        entry = {stored.cycle, address, stored.index, uint16_t(number_), stored.beat.strobe, {}};
        std::memcpy(entry.data, stored.beat.data, BEAT_BYTES);
    }
};
