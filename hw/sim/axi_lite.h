// The AXI4-Lite manager that reads and writes the core's registers, one access at a time.
#pragma once

#include "Vdut.h"
#include "axi_memory.h"

struct LitePins {
    SData *awaddr, *araddr;
    CData *awprot, *awvalid, *awready, *wstrb, *wvalid, *wready, *bresp, *bvalid, *bready;
    CData *arprot, *arvalid, *arready, *rresp, *rvalid, *rready;
    IData *wdata, *rdata;
};

struct LiteData {
    uint32_t data;
    CData response;
    bool operator==(const LiteData&) const = default;
};

class AxiLite {
  public:
    uint64_t stalled = 0;

    AxiLite(Shared& shared, const LitePins& pins) : shared_(shared), pins_(pins) {
        stall_.seed(shared.config.stall_seed * 64 + 63, shared.config.stall[CONTROL]);
    }

    void reset() {
        address_ = data_ = read_ = false;
        busy_ = awaits_answer_ = awaits_read_ = false;
        *pins_.awvalid = *pins_.wvalid = *pins_.arvalid = *pins_.bready = *pins_.rready = 0;
        hold_b_.clear();
        hold_r_.clear();
    }

    void check_reset() {
        if (*pins_.bvalid || *pins_.rvalid)
            shared_.violations.report(shared_.cycle, "the register port raises VALID during reset");
    }

    void start_write(uint32_t offset, uint32_t value) {
        *pins_.awaddr = offset;
        *pins_.wdata = value;
        *pins_.wstrb = 0xF;
        address_ = data_ = busy_ = awaits_answer_ = true;
    }

    void start_read(uint32_t offset) {
        *pins_.araddr = offset;
        read_ = busy_ = awaits_read_ = true;
    }

    bool busy() const { return busy_; }
    LiteData result() const { return result_; }

    void drive() {
        drive_valid(pins_.awvalid, address_);
        drive_valid(pins_.wvalid, data_);
        drive_valid(pins_.arvalid, read_);
        drive_valid(pins_.bready, awaits_answer_);
        drive_valid(pins_.rready, awaits_read_);
    }

    void observe() {
        const bool answer = *pins_.bvalid, read = *pins_.rvalid;
        const LiteData answered{0, CData(answer ? *pins_.bresp : 0)};
        const LiteData got{read ? *pins_.rdata : 0, CData(read ? *pins_.rresp : 0)};
        hold_b_.observe(shared_.violations, shared_.cycle, "register B", 0, answer, *pins_.bready, answered);
        hold_r_.observe(shared_.violations, shared_.cycle, "register R", 0, read, *pins_.rready, got);
        check_order(answer, read);
        if (answer && *pins_.bready) finish(awaits_answer_, answered);
        if (read && *pins_.rready) finish(awaits_read_, got);
        taken(pins_.awvalid, pins_.awready, address_);
        taken(pins_.wvalid, pins_.wready, data_);
        taken(pins_.arvalid, pins_.arready, read_);
    }

  private:
    Shared& shared_;
    const LitePins pins_;
    StallSource stall_;
    bool address_ = false, data_ = false, read_ = false;  // still to be accepted
    bool busy_ = false, awaits_answer_ = false, awaits_read_ = false;
    LiteData result_{};
    HoldCheck<LiteData> hold_b_, hold_r_;

    void drive_valid(CData* valid, bool wanted) {
        const bool withheld = wanted && !*valid && stall_.draw();
        stalled += withheld;
        *valid = wanted && (*valid || !withheld);
    }

    void taken(CData* valid, const CData* ready, bool& waiting) {
        if (*valid && *ready) waiting = false;
    }

    void check_order(bool answer, bool read) {
        if (answer && (!awaits_answer_ || address_ || data_))
            shared_.violations.report(shared_.cycle, "register B answers a write that has not been accepted");
        if (read && (!awaits_read_ || read_))
            shared_.violations.report(shared_.cycle, "register R answers a read that has not been accepted");
    }

    void finish(bool& waiting, const LiteData& result) {
        waiting = busy_ = false;
        result_ = result;
        if (result.response == 1) shared_.violations.report(shared_.cycle, "register access answered EXOKAY");
    }
};
