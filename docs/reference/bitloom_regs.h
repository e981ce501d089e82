/* Bitloom register table; generated from hw/spec/regs.py. */
#ifndef BITLOOM_REGS_H
#define BITLOOM_REGS_H

#define BITLOOM_IDENTITY 0x000u /* ro: the letters BTLM */
#define BITLOOM_VERSION 0x004u /* ro: version of this register table */
#define BITLOOM_ARCH_ID_LO 0x008u /* ro: identity of architecture and instruction table, bits 31:0 */
#define BITLOOM_ARCH_ID_HI 0x00Cu /* ro: identity of architecture and instruction table, bits 63:32 */
#define BITLOOM_BUILD_ID_LO 0x010u /* ro: hash of the design record, tied off by the board's wrapper, bits 31:0 */
#define BITLOOM_BUILD_ID_HI 0x014u /* ro: hash of the design record, tied off by the board's wrapper, bits 63:32 */
#define BITLOOM_CONTROL 0x020u /* wo: commands */
#define BITLOOM_CONTROL_START 0x1u /* run the program; ignored while BUSY, and after BUS_STUCK until reset */
#define BITLOOM_CONTROL_ABORT 0x2u /* end the running program with ABORTED once outstanding bursts have ended */
#define BITLOOM_CONTROL_ACKNOWLEDGE 0x4u /* clear DONE and the interrupt; ignored while BUSY */
#define BITLOOM_STATUS 0x024u /* ro: state */
#define BITLOOM_STATUS_BUSY 0x1u /* a program runs */
#define BITLOOM_STATUS_DONE 0x2u /* a program ended, well or not; the interrupt is DONE and IRQ_ENABLE */
#define BITLOOM_STATUS_ERROR 0x4u /* it ended with an error */
#define BITLOOM_STATUS_STUCK 0x8u /* the memory stopped answering: only a reset helps */
#define BITLOOM_ERROR_CODE 0x028u /* ro: why the last program ended */
#define BITLOOM_ERROR_INDEX 0x02Cu /* ro: the offending instruction; 0xFFFFFFFF before the first */
#define BITLOOM_IRQ_ENABLE 0x030u /* rw: bit 0: raise the interrupt when DONE */
#define BITLOOM_RETIRED 0x034u /* ro: instructions retired since start */
#define BITLOOM_WATCHDOG 0x038u /* rw: most cycles between two retirements; 0 is off */
#define BITLOOM_PROGRAM_ADDR_LO 0x040u /* rw: byte address of the program, a multiple of 64, bits 31:0 */
#define BITLOOM_PROGRAM_ADDR_HI 0x044u /* rw: byte address of the program, a multiple of 64, bits 63:32 */
#define BITLOOM_PROGRAM_LENGTH 0x048u /* rw: bytes of header and instructions */
#define BITLOOM_CYCLES_LO 0x080u /* ro: cycles from start to end, bits 31:0 */
#define BITLOOM_CYCLES_HI 0x084u /* ro: cycles from start to end, bits 63:32 */
#define BITLOOM_READ_BEATS_LO 0x088u /* ro: read beats received, bits 31:0 */
#define BITLOOM_READ_BEATS_HI 0x08Cu /* ro: read beats received, bits 63:32 */
#define BITLOOM_WRITE_BEATS_LO 0x090u /* ro: write beats sent, bits 31:0 */
#define BITLOOM_WRITE_BEATS_HI 0x094u /* ro: write beats sent, bits 63:32 */
#define BITLOOM_READ_STALLS_LO 0x098u /* ro: cycles in which the core was ready for read data and none was valid, bits 31:0 */
#define BITLOOM_READ_STALLS_HI 0x09Cu /* ro: cycles in which the core was ready for read data and none was valid, bits 63:32 */
#define BITLOOM_WRITE_STALLS_LO 0x0A0u /* ro: cycles in which a write beat was valid and the memory was not ready, bits 31:0 */
#define BITLOOM_WRITE_STALLS_HI 0x0A4u /* ro: cycles in which a write beat was valid and the memory was not ready, bits 63:32 */
#define BITLOOM_COMPUTE_LO 0x0A8u /* ro: cycles in which an instruction other than LOAD and STORE ran, bits 31:0 */
#define BITLOOM_COMPUTE_HI 0x0ACu /* ro: cycles in which an instruction other than LOAD and STORE ran, bits 63:32 */
#define BITLOOM_REGION0_BASE_LO 0x100u /* rw: first byte address of region 0, bits 31:0 */
#define BITLOOM_REGION0_BASE_HI 0x104u /* rw: first byte address of region 0, bits 63:32 */
#define BITLOOM_REGION0_SIZE_LO 0x108u /* rw: bytes of region 0, bits 31:0 */
#define BITLOOM_REGION0_SIZE_HI 0x10Cu /* rw: bytes of region 0, bits 63:32 */
#define BITLOOM_REGION1_BASE_LO 0x110u /* rw: first byte address of region 1, bits 31:0 */
#define BITLOOM_REGION1_BASE_HI 0x114u /* rw: first byte address of region 1, bits 63:32 */
#define BITLOOM_REGION1_SIZE_LO 0x118u /* rw: bytes of region 1, bits 31:0 */
#define BITLOOM_REGION1_SIZE_HI 0x11Cu /* rw: bytes of region 1, bits 63:32 */
#define BITLOOM_REGION2_BASE_LO 0x120u /* rw: first byte address of region 2, bits 31:0 */
#define BITLOOM_REGION2_BASE_HI 0x124u /* rw: first byte address of region 2, bits 63:32 */
#define BITLOOM_REGION2_SIZE_LO 0x128u /* rw: bytes of region 2, bits 31:0 */
#define BITLOOM_REGION2_SIZE_HI 0x12Cu /* rw: bytes of region 2, bits 63:32 */
#define BITLOOM_REGION3_BASE_LO 0x130u /* rw: first byte address of region 3, bits 31:0 */
#define BITLOOM_REGION3_BASE_HI 0x134u /* rw: first byte address of region 3, bits 63:32 */
#define BITLOOM_REGION3_SIZE_LO 0x138u /* rw: bytes of region 3, bits 31:0 */
#define BITLOOM_REGION3_SIZE_HI 0x13Cu /* rw: bytes of region 3, bits 63:32 */

#define BITLOOM_ERROR_NONE 0u
#define BITLOOM_ERROR_BAD_LENGTH 1u
#define BITLOOM_ERROR_HEADER_CRC 2u
#define BITLOOM_ERROR_BAD_MAGIC 3u
#define BITLOOM_ERROR_CONTAINER_VERSION 4u
#define BITLOOM_ERROR_WRONG_ARCH 5u
#define BITLOOM_ERROR_INSTRUCTION_CRC 8u
#define BITLOOM_ERROR_INSTRUCTION_VERSION 9u
#define BITLOOM_ERROR_OPCODE 10u
#define BITLOOM_ERROR_RESERVED 11u
#define BITLOOM_ERROR_FIELD_RANGE 12u
#define BITLOOM_ERROR_TOKEN 13u
#define BITLOOM_ERROR_REGION 16u
#define BITLOOM_ERROR_BUFFER_RANGE 17u
#define BITLOOM_ERROR_BLOB_CRC 18u
#define BITLOOM_ERROR_AXI_READ 20u
#define BITLOOM_ERROR_AXI_WRITE 21u
#define BITLOOM_ERROR_WATCHDOG 24u
#define BITLOOM_ERROR_ABORTED 25u
#define BITLOOM_ERROR_BUS_STUCK 26u

#endif
