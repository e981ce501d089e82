"""The C++ test bench of a network, and the codes that it is run on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sw.bridges.errors import BridgeError
from sw.bridges.hls.plan import Network, Tensor
from sw.graph import IntegerGraph

__all__ = ["bench", "check_images", "code_lines", "random_inputs"]

RANDOM_IMAGES = 4


def bench(network: Network, name: str) -> str:
    """A program that runs the top function on codes from a file, writes codes and, if asked to, compares them."""
    ports = [f"static {t.type} {t.identifier}_in[{t.size}];" for t in network.inputs]
    ports += [f"static {t.type} {t.identifier}_out[{t.size}];" for t in network.outputs]
    reads = [f"    if (!read(input, {t.identifier}_in, {t.size}, {_number(t.fmt.min_code)}, {_number(t.fmt.max_code)}, "
             f'"{t.identifier}")) return 2;' for t in network.inputs]
    writes = [f"    write(output, codes, {t.identifier}_out, {t.size});" for t in network.outputs]
    arguments = [f"{t.identifier}_in" for t in network.inputs] + [f"{t.identifier}_out" for t in network.outputs]
    values = {"NAME": name, "PORTS": "\n".join(ports), "READS": "\n".join(reads), "WRITES": "\n".join(writes),
              "CALL": f"    {name}({', '.join(arguments)});"}
    text = _BENCH
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text.lstrip()


def _number(code: int) -> str:
    """A 64-bit literal; C++ has none for the smallest one."""
    return f"(-{2**63 - 1}LL - 1)" if code == -(2**63) else f"{code}LL"


_BENCH = r"""
// Test bench: @NAME@_test INPUT OUTPUT [EXPECTED]
// INPUT holds integer codes, image after image, each input's in the order [channels][rows][columns]. OUTPUT gets a line of codes
// for each image. With EXPECTED the codes are compared, and anything but equality ends with status 1.
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "@NAME@.h"

@PORTS@

// Codes of one input; false, with a message, for what is no code of its format.
template <class T> static bool read(std::istream &input, T *port, int count, long long low, long long high, const char *name) {
  for (int k = 0; k < count; k++) {
    long long code;
    if (!(input >> code) || code < low || code > high) {
      std::cerr << name << ": code " << k << " of " << count << " must be an integer in " << low << ".." << high << "\n";
      return false;
    }
    const ap_int<T::width> bits = code;
    port[k].range(T::width - 1, 0) = bits.range(T::width - 1, 0);
  }
  return true;
}

template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> static long long code_of(const ap_fixed<W, I, Q, O, N> &value) {
  ap_int<W> code;
  code.range(W - 1, 0) = value.range(W - 1, 0);
  return code.to_int64();
}
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> static long long code_of(const ap_ufixed<W, I, Q, O, N> &value) {
  ap_uint<W> code;
  code.range(W - 1, 0) = value.range(W - 1, 0);
  return code.to_int64();
}

template <class T> static void write(std::ostream &output, std::vector<long long> &codes, const T *port, int count) {
  for (int k = 0; k < count; k++) {
    codes.push_back(code_of(port[k]));
    output << codes.back() << ' ';
  }
}

// How many codes differ from those of a file, or are too few or too many; at least 1 where there are none.
static long mismatches(const std::vector<long long> &codes, const char *path) {
  std::ifstream file(path);
  std::vector<long long> expected;
  for (long long code; file >> code;) expected.push_back(code);
  if (!file.eof() || codes.empty()) return 1 + (long)codes.size();
  long wrong = codes.size() > expected.size() ? (long)(codes.size() - expected.size()) : (long)(expected.size() - codes.size());
  for (size_t k = 0; k < codes.size() && k < expected.size(); k++) wrong += codes[k] != expected[k];
  return wrong;
}

int main(int argc, char **argv) {
  if (argc != 3 && argc != 4) {
    std::cerr << "usage: " << argv[0] << " INPUT OUTPUT [EXPECTED]\n";
    return 2;
  }
  std::ifstream input(argv[1]);
  std::ofstream output(argv[2]);
  if (!input || !output) {
    std::cerr << "cannot open " << argv[1] << " or " << argv[2] << "\n";
    return 2;
  }
  std::vector<long long> codes;
  long images = 0;
  while (input >> std::ws && !input.eof()) {
@READS@
@CALL@
@WRITES@
    output << "\n";
    images++;
  }
  output.close();
  if (!output) {
    std::cerr << "cannot write " << argv[2] << "\n";
    return 2;
  }
  std::cout << "@NAME@: " << images << " images, " << codes.size() << " codes";
  const long wrong = argc == 4 ? mismatches(codes, argv[3]) : 0;
  if (argc == 4) std::cout << " compared, " << wrong << " mismatches";
  std::cout << std::endl;
  return wrong ? 1 : 0;
}
"""


def random_inputs(graph: IntegerGraph, seed: int = 1) -> dict[str, np.ndarray]:
    """Codes (N, C, H, W) of every input: all of its format, both ends more often."""
    rng, codes = np.random.default_rng(seed), {}
    for name in graph.inputs:
        spec = graph.tensors[name]
        low, high = spec.fmt.min_code, spec.fmt.max_code
        array = rng.integers(low, high, (RANDOM_IMAGES, *spec.shape), np.int64, endpoint=True)
        extreme = rng.random(array.shape)
        array[extreme < 0.05], array[extreme > 0.95] = low, high
        codes[name] = array
    return codes


def check_images(names: Sequence[str], codes: Mapping[str, np.ndarray], where: str = "the inputs' mapping") -> None:
    """BridgeError where a tensor has no codes, or another number of images than the others; ``where`` the codes are from."""
    if missing := [name for name in names if name not in codes]:
        held = f"arrays named {_quoted(codes)}" if codes else "nothing"
        raise BridgeError(f"{where} must hold an array of integer codes for each input, named {_quoted(names)}, and it holds {held}: "
                          f"{_quoted(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    counts = [(*np.shape(codes[name]), 0)[0] for name in names]
    if len(set(counts)) != 1 or not counts[0]:
        raise BridgeError(f"{where} must hold as many images for each input, at least one, not {counts}")


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def code_lines(tensors: Sequence[Tensor], codes: Mapping[str, np.ndarray]) -> str:
    """A line for each image: the codes of all tensors, one behind the other."""
    check_images([t.name for t in tensors], codes)
    images = [np.asarray(codes[t.name]).reshape(len(codes[t.name]), -1) for t in tensors]
    return "".join(" ".join(map(str, row)) + "\n" for row in np.concatenate(images, axis=1).tolist())
