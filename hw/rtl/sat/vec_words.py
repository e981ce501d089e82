"""Memory words as every unit of the training core reads them: an exponent of all ones is the largest finite number of its sign."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value


def read_fp16(bits: Value) -> Value:
    """16 bits as a finite FP16."""
    top = bits[10:15].all()
    return Cat(bits[:10] | top.replicate(10), bits[10] & ~top, bits[11:16])


def read_fp32(bits: Value) -> Value:
    """32 bits as a finite FP32."""
    top = bits[23:31].all()
    return Cat(bits[:23] | top.replicate(23), bits[23] & ~top, bits[24:32])


def fp16_word(word: Value) -> Value:
    """A word of eight FP16."""
    return Cat(read_fp16(word.word_select(number, 16)) for number in range(len(word) // 16))


def fp32_word(word: Value) -> Value:
    """A word of four FP32."""
    return Cat(read_fp32(word.word_select(number, 32)) for number in range(len(word) // 32))


def taken(m: Module, word: Value, fp32: Value, name: str) -> Signal:
    """A register with a memory word as FP16 or FP32 numbers."""
    register = Signal(len(word), name=name, reset_less=True)
    m.d.sync += register.eq(Mux(fp32, fp32_word(word), fp16_word(word)))
    return register
