"""The machine code of every kernel: no hidden float64, vectors in loops, the same from the cache.

What is read is the code that the cache keeps: nothing is compiled for these tests that has been compiled already.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from llvmlite import binding

from checkout import run_python
from fastml.cli import warmup
from fastml.kernels import catalogue
from fastml.kernels.runtime import jit, machine_code

CALL_EVERY_KERNEL = """
import fastml
from fastml.cli import warmup
from fastml.kernels import catalogue
from fastml.kernels.runtime import jit
def calls():
    for model, fit in warmup.MODELS.items():
        getattr(fastml, model)  # scikit-learn takes a second
        yield fit, ("float32",), {}
    for entry in catalogue.ENTRIES.values():
        if "float32" not in entry.dtypes:
            continue
        inputs = entry.make(entry.sizes["tiny"], "float32")
        yield entry.tier("compiled"), inputs.args, inputs.kwargs
        for inputs in entry.warm_inputs("float32"):
            yield entry.tier("compiled"), inputs.args, {**inputs.kwargs, "n_threads": 2}
"""

CALL_FAMILIES = """
import sys
from fastml.kernels import catalogue
from fastml.kernels.runtime import jit
def calls():
    for entry in catalogue.ENTRIES.values():
        if "float32" in entry.dtypes and {entry.family, entry.key} & set(sys.argv[2:]):
            inputs = entry.make(entry.sizes["tiny"], "float32")
            yield entry.tier("compiled"), inputs.args, inputs.kwargs
"""

# Calls kernels in float32 and writes down the record of each, as the cache has it, by its name.
WRITE_RECORDS = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
for kernel, args, kwargs in calls():
    kernel(*args, **kwargs)
for name, compiled in zip(jit.stats(), jit.KERNELS):
    for number, types in enumerate(compiled.overloads):
        (folder / f"{name}.{number}.record").write_bytes(compiled._cache._read(compiled._cache._file(types)))
for count in ("hits", "misses"):
    (folder / count).write_text(str(sum(counts[count] for counts in jit.stats().values())))
"""


def counted(folder: Path) -> tuple[int, int]:
    """Cache hits and cache misses of the process that wrote the folder."""
    hits, misses = (int((folder / count).read_text()) for count in ("hits", "misses"))
    return hits, misses


@pytest.fixture(scope="module")
def compiled_code(tmp_path_factory) -> Path:
    """A folder with the machine code of every float32 kernel."""
    folder = tmp_path_factory.mktemp("code")
    run_python(CALL_EVERY_KERNEL + WRITE_RECORDS, str(folder), FASTML_PACK="0")
    return folder


#: Targets of x86, with what a CPU needs to run their code.
TARGETS = {"generic": "sse2", "x86-64-v3": "fma"}


@pytest.fixture(scope="module", params=TARGETS)
def code_of_another_target(request, tmp_path_factory, cache_for) -> Path:
    """A folder with the machine code of elementwise functions and losses in float32, as another CPU gets it."""
    if not binding.get_host_cpu_features().get(TARGETS[request.param]):
        pytest.skip(f"this CPU cannot run code for {request.param}")
    folder = tmp_path_factory.mktemp(request.param)
    # Of linear models one with one score and one with a score per class: what the others add are the losses.
    families = ("logistic", "multinomial", "margin", "regression")
    families += tuple(f"linear_loss_gradient[{loss}]" for loss in ("squared_error", "softmax_cross_entropy"))
    run_python(CALL_FAMILIES + WRITE_RECORDS, str(folder), *families, **cache_for(request.param))
    return folder


Block = tuple[str, list[str]]  # label, instructions

LABEL = re.compile(r"^([\w.$]+):")

JUMP = re.compile(r"^(j\w+|loop\w*)\s+([\w.$]+)")

CONVERSION = re.compile(r"^v?(cvtss2sd|cvtps2pd|cvtsd2ss|cvtpd2ps)")

DOUBLE = re.compile(r"^v?(add|sub|mul|div|sqrt|min|max|fn?m(?:add|sub)\d+|round|rndscale|cmp\w*?|u?comi)(pd|sd)\b")

SINGLE = re.compile(r"^v?(add|sub|mul|div|fn?m(?:add|sub)\d+|max|min|padd|psub|pmax)(ps|ss|[bwdqs]+)\b")

PADDING = re.compile(r"\bnop[wl]?\b|^(data16 )*xchg\s+%ax,%ax")

SINGLE_VECTOR = re.compile(r"^v?(add|sub|mul|div|fn?m(?:add|sub)\d+)ps\b")


class Unreadable(Exception):
    """The text is no assembly of the kernel."""


@cache
def disassembled(code: bytes) -> str:
    """Turn an object file into assembly as a compiler writes it: with labels and names where objdump has addresses."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "code.o"
        path.write_bytes(code)
        command = ["objdump", "--disassemble", "--reloc", "--no-show-raw-insn", str(path)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    text: list[str] = []
    for function in re.split(r"^[0-9a-f]+ (?=<.+>:$)", listing, flags=re.MULTILINE)[1:]:
        name = function[1 : function.index(">:")]
        own = re.compile(rf"\b([0-9a-f]+) <{re.escape(name)}(\+0x[0-9a-f]+)?>")
        places = {address for address, _ in own.findall(function)}
        text.append(f"{name}:")
        for line in function.splitlines():
            if relocated := re.match(r"\s+[0-9a-f]+: R_\w+\s+([^\s+-]+)", line):
                text[-1] = re.sub(r"\$0x0\b|[0-9a-f]+ <.*>", f"${relocated[1]}", text[-1])
            elif (listed := re.match(r"\s*([0-9a-f]+):\t(.+)", line)) and not PADDING.search(listed[2]):
                address, instruction = listed.groups()
                text += [f".L{address}:"] * (address in places)
                text.append(re.sub(r"\b[0-9a-f]+ <([^+>]+)>", r"\1", own.sub(r".L\1", instruction)))
        text.append(".cfi_endproc")
    return "\n".join(text)


def functions(assembly: str) -> dict[str, list[str]]:
    """Symbol -> lines of every function in the text, labels included, directives and comments left out."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in assembly.splitlines():
        line = line.split("#", 1)[0].strip()
        if (label := LABEL.match(line)) and not label[1].startswith(("L", ".L")):
            current = found.setdefault(label[1].lstrip("_") if sys.platform == "darwin" else label[1], [])
        elif line.startswith((".cfi_endproc", ".size")):
            current = None
        elif current is not None and line and (LABEL.match(line) or not line.startswith(".")):
            current.append(line)
    return found


def reachable(code: dict[str, list[str]], symbol: str) -> list[str]:
    """The kernel's own symbol and the functions it calls that were not inlined; no wrapper, no run-time library."""
    if symbol not in code:
        raise Unreadable(f"no code of {symbol}")
    found, waiting = [], [symbol]
    while waiting:
        name = waiting.pop()
        if name in found or name not in code or name.startswith("NRT_"):
            continue
        found.append(name)
        for line in code[name]:
            waiting += re.findall(r"^(?:call|callq|jmp|movabs\w*)\s+.*?\$?([A-Za-z_][\w.$]*)", line)
    return found


def blocks_of(lines: list[str]) -> list[Block]:
    """Cut instructions at labels and behind jumps."""
    blocks: list[Block] = [("", [])]
    for line in lines:
        if label := LABEL.match(line):
            blocks.append((label[1], []))
        else:
            blocks[-1][1].append(line)
            if JUMP.match(line):
                blocks.append(("", []))
    # What lies between a jump and a label would look like another way into the label's block.
    return [block for block in blocks if block != ("", [])]


def innermost_loops(lines: list[str]) -> Iterator[list[str]]:
    """Yield the instructions of each loop that has no loop inside.

    A loop is a strongly connected part of the graph of basic blocks; what is left of it without the block that it
    is entered by holds the loops inside.
    """
    blocks = blocks_of(lines)
    place = {label: number for number, (label, _) in enumerate(blocks) if label}
    follow: list[list[int]] = []
    for number, (_, body) in enumerate(blocks):
        last = body[-1] if body else ""
        jump = JUMP.match(last)
        targets = [place[jump[2]]] if jump and jump[2] in place else []
        if not (last.startswith(("jmp", "ret", "ud2"))) and number + 1 < len(blocks):
            targets.append(number + 1)
        follow.append(targets)
    waiting = [set(range(len(blocks)))]
    while waiting:
        within = waiting.pop()
        for part in strongly_connected(follow, within):
            if len(part) == 1 and not set(follow[min(part)]) & part:
                continue
            entered = {t for s in range(len(blocks)) if s not in part for t in follow[s] if t in part}
            inner = [
                inside
                for inside in strongly_connected(follow, part - (entered or {min(part)}))
                if len(inside) > 1 or set(follow[min(inside)]) & inside
            ]
            if inner:
                waiting.append(part - (entered or {min(part)}))
            else:
                yield [line for number in sorted(part) for line in blocks[number][1]]


def strongly_connected(follow: list[list[int]], within: set[int]) -> Iterator[set[int]]:
    """Yield the strongly connected parts of a graph, by two sweeps of depth-first search (Kosaraju)."""
    order: list[int] = []
    seen: set[int] = set()
    for root in within:
        stack = [(root, iter(follow[root]))] if root not in seen else []
        seen.add(root)
        while stack:
            node, targets = stack[-1]
            target = next((t for t in targets if t in within and t not in seen), None)
            if target is None:
                order.append(node)
                stack.pop()
            else:
                seen.add(target)
                stack.append((target, iter(follow[target])))
    back: dict[int, list[int]] = {node: [] for node in within}
    for node in within:
        for target in follow[node]:
            if target in within:
                back[target].append(node)
    left = set(within)
    for root in reversed(order):
        if root in left:
            part, stack = set(), [root]
            while stack:
                node = stack.pop()
                if node in left:
                    left.remove(node)
                    part.add(node)
                    stack += back[node]
            yield part


def hidden_doubles(assembly: str, symbol: str, accumulates: bool) -> list[str]:
    """Return the instructions on float64 in the innermost loops of a float32 kernel.

    Where the catalogue says that the running sum is float64 (`accumulates`), a number may be widened and added in
    a loop; anything else (a product, a way back to float32) comes from a number that became float64 by accident.
    """
    code = functions(assembly)
    allowed = re.compile(r"^v?(cvtss2sd|cvtps2pd|add[ps]d)\b") if accumulates else re.compile(r"(?!)")
    return [
        f"{name}: {line}"
        for name in reachable(code, symbol)
        for loop in innermost_loops(code[name])
        for line in loop
        if (CONVERSION.match(line) or DOUBLE.match(line)) and not allowed.match(line)
    ]


def read(record: bytes) -> tuple[str, str]:
    """Return the assembly in a record, and the name that the kernel has there."""
    head, _, code = record.partition(b"\n")
    # What Python calls is a wrapper: of the same name, but for the namespace in front.
    return disassembled(code), json.loads(head)["entry"].replace("_ZN7cpython", "_ZN", 1)


def records(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield each kernel, its assembly, and the name it has there."""
    for path in sorted(folder.glob("*.record")):
        yield path.name.rsplit(".", 2)[0], *read(path.read_bytes())


def accumulating_kernels(signatures: dict[str, dict[str, int]]) -> set[str]:
    """Kernels all of whose entries have float64 in the catalogue's column of accumulators, for float32 input."""
    kinds: dict[str, set[str]] = {}
    for key, called in signatures.items():
        if key in catalogue.ENTRIES and "float32" not in catalogue.ENTRIES[key].dtypes:
            continue
        for kernel in called:
            of_model = key in warmup.MODELS  # float32 sums move to float64 every few rows
            kinds.setdefault(kernel, set()).add(
                "float64" if of_model else catalogue.ENTRIES[key].dtypes["float32"].accumulator
            )
    return {kernel for kernel, accumulators in kinds.items() if accumulators == {"float64"}}


#: Bounds are of float64, one for each 32 pairs; the distances themselves are made by the instructions of tiles.
#: Principal columns are differences of distances, made once for each row.
#: Random numbers are of float64 whatever is shuffled. Rows are divided by their lengths in float64, and rounded once.
#: Rows that miss values are compared in float64, whatever they come in. Models with float64 coefficients ask for scores
#: in float64. Newton steps with an L1 penalty work on float64 copies of a few columns.
ONLY_DOUBLE = {
    "neighbors.donors._offer",
    "linear.coordinates._descend_products",
    "linear.coordinates._descend_rows",
}
DOUBLE_BY_NATURE = {
    "distances.searched_rows._write_directions",
    *(f"linear.scores.{name}" for name in ("_score", "_scores", "_score_of_columns", "_scores_of_columns")),
    "neighbors._pruning._pack_all",
    "neighbors._pruning._prune",
    "neighbors._principal._columns",
    "runtime.permutation._place",
    *ONLY_DOUBLE,
}

#: What a kernel may do beside widening and adding: the sums of a large batch become float32 again at its end.
NARROWING = ("linear._descent.", "networks._loop.train")


# --------------------------------------------------------------------------------- compile budget


@pytest.mark.needs_jit
@pytest.mark.slow
def test_a_second_process_finds_every_kernel_in_the_cache(compiled_code):
    code = """
import time
worst = 0
for kernel, args, kwargs in calls():
    took = []
    for _ in range(2):
        start = time.thread_time()  # of this thread, so that other processes do not count
        kernel(*args, **kwargs)
        took.append(time.thread_time() - start)
    worst = max(worst, took[0] - took[1])  # loading, without the work itself
print(sum(c["hits"] for c in jit.stats().values()), sum(c["misses"] for c in jit.stats().values()), worst)
"""
    hits, misses, worst = run_python(CALL_EVERY_KERNEL + code, FASTML_PACK="0").split()
    assert (int(hits), int(misses)) == (sum(counted(compiled_code)), 0)
    assert float(worst) < 0.5, "a first call from a warm cache takes too long"


# ------------------------------------------------------------------------ no hidden float64: tests

# What works on float32 rows in float64, for the last digits of a fit: passes, products with float64 factors, duals.
WIDENING = re.compile(r"^linear\.(objective\.(.*_widened|_combine) |gram\._add_gram .*ArrayIdLi1E|dual\.)")

X86 = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64") or sys.platform != "linux" or not shutil.which("objdump"),
    reason="reads the assembly of x86, as objdump has it",
)


@X86
@pytest.mark.needs_jit
@pytest.mark.slow
def test_no_hidden_float64_in_float32_kernels(compiled_code, signatures):
    assert kernels_with_hidden_doubles(compiled_code, accumulating_kernels(signatures)) == {}


@X86
@pytest.mark.needs_jit
@pytest.mark.slow
@pytest.mark.targets
def test_no_hidden_float64_for_other_targets(code_of_another_target, signatures):
    assert len(list(records(code_of_another_target))) > 12
    assert kernels_with_hidden_doubles(code_of_another_target, accumulating_kernels(signatures)) == {}


def kernels_with_hidden_doubles(folder: Path, accumulating: set[str]) -> dict[str, list[str]]:
    found = {}
    for kernel, assembly, symbol in records(folder):
        if kernel in DOUBLE_BY_NATURE or WIDENING.search(f"{kernel} {symbol}"):
            continue
        hidden = hidden_doubles(assembly, symbol, kernel in accumulating)
        if kernel.startswith(NARROWING):
            hidden = [line for line in hidden if not re.search(r": v?cvt[ps]d2[ps]s", line)]
        if hidden:
            found[kernel] = hidden
    return found


#: What only compares and moves numbers, in an instruction or more; `_write_norms` multiplies bytes.
ONLY_MOVING = {
    *(f"convolution._grid_loops.{name}" for name in ("copy_lines", "max_pool", "relu_backward")),
    "convolution._products.transpose_kernels",
    *("neighbors._heaps.merge", "neighbors._heaps.sort_rows", "neighbors.nearest._have_extremes"),
    *(f"neighbors._within.{name}" for name in ("group", "note", "place")),
    "distances.panels._write_norms",
    "linear.gram._mirror",
    "runtime.permutation._place",
}


@X86
@pytest.mark.needs_jit
@pytest.mark.slow
def test_every_kernel_was_read_and_has_loops(compiled_code, loaded):
    assert {kernel for kernel, _, _ in records(compiled_code)} == set(loaded[1])
    for kernel, assembly, symbol in records(compiled_code):
        code = functions(assembly)
        loops = [loop for name in reachable(code, symbol) for loop in innermost_loops(code[name])]
        assert loops, kernel
        if kernel not in ONLY_MOVING | ONLY_DOUBLE:
            assert any(SINGLE.match(line) for loop in loops for line in loop), f"{kernel} computes nothing in a loop"


def promoted(x, out):
    for i in range(x.size):
        out[i] = x[i] * 0.5 + 0.1


def product_in_double(x, out):
    total = 0.0
    for i in range(x.size):
        total += x[i] * 0.1
    out[0] = total


def sum_in_double(x, out):
    total = 0.0
    for i in range(x.size):
        total += x[i]
    out[0] = total


def sum_in_double_per_block(x, out):
    total = 0.0
    for block in range(0, x.size, 128):
        part = np.float32(0)
        for value in x[block : block + 128]:
            part += value * value
        total += part * 0.5
    out[0] = total


def all_single(x, out):
    for i in range(x.size):
        out[i] = x[i] * np.float32(0.5) + np.float32(0.1)


def record_of(function) -> bytes:
    compiled = jit.inner(function)
    compiled(np.ones(1000, "f4"), np.ones(1000, "f4"))
    (overload,) = compiled.overloads.values()
    return machine_code.record(overload)


def assembly_of(function) -> tuple[str, str]:
    return read(record_of(function))


@X86
@pytest.mark.needs_jit
@pytest.mark.parametrize(
    ("function", "where_sums_are_single", "where_sums_are_double"),
    [
        (promoted, True, True),
        (product_in_double, True, True),
        (sum_in_double, True, False),
        (sum_in_double_per_block, False, False),
        (all_single, False, False),
    ],
)
def test_planted_float64_is_found(function, where_sums_are_single, where_sums_are_double):
    text, symbol = assembly_of(function)
    assert bool(hidden_doubles(text, symbol, accumulates=False)) == where_sums_are_single
    assert bool(hidden_doubles(text, symbol, accumulates=True)) == where_sums_are_double


@X86
@pytest.mark.needs_jit
def test_planted_float64_in_a_helper_that_is_not_inlined_is_found():
    @jit.inner
    def helper(x, out):
        for block in range(10):
            for i in range(x.size):
                out[i] = out[i] * 0.5 + 0.1 * block

    def calls_it(x, out):
        helper(x, out)
        helper(out, x)

    assert hidden_doubles(*assembly_of(calls_it), accumulates=False)


@X86
def test_other_symbols_do_not_count():
    text = """
kernel:
.LBB0_1:
    addps %xmm0, %xmm1
    decq %rax
    jne .LBB0_1
    retq
    .cfi_endproc
wrapper:
.LBB1_1:
    cvtss2sd %xmm0, %xmm0
    jne .LBB1_1
    retq
"""
    assert hidden_doubles(text, "kernel", accumulates=False) == []
    assert hidden_doubles(text, "wrapper", accumulates=False)
    for text in ("", "# no assembly", "kernel is not here"):
        with pytest.raises(Unreadable):
            hidden_doubles(text, "kernel", accumulates=False)


def test_innermost_loops_of_a_nest():
    text = """
        a ; outer: ; b ; inner: ; c ; jne inner ; second: ; d ; je cold ; e ; skip: ; f ; jmp end ; end: ; jne second
        g ; jne outer ; h ; retq ; cold: ; i ; jmp skip
    """
    loops = list(innermost_loops([line.strip() for line in text.replace("\n", ";").split(";") if line.strip()]))
    assert sorted(sorted(line for line in loop if len(line) == 1) for loop in loops) == [["c"], ["d", "e", "f", "i"]]
    assert list(innermost_loops(["a", "jne end", "b", "end:", "retq"])) == []


# ---------------------------------------------------------------- no message of Numba's assignment

#: Of what Numba says where the shapes in an assignment to an array differ: 34 functions make the message.
MISMATCH = b"cannot assign slice"


@pytest.mark.needs_jit
@pytest.mark.slow
def test_no_kernel_has_a_formatted_message(compiled_code):
    assert [path.name for path in compiled_code.glob("*.record") if MISMATCH in path.read_bytes()] == []


def assigns_array(x, out):
    out[1:] = x[1:]


def assigns_tuple(x, out):
    out[:2] = x[0], x[1]


@pytest.mark.needs_jit
@pytest.mark.parametrize("function", [assigns_array, assigns_tuple])
def test_a_planted_assignment_with_a_message_is_found(function):
    assert MISMATCH in record_of(function)


# ------------------------------------------------------------------------------- vectors in loops


def calls_and_vectors(assembly: str, symbol: str) -> tuple[list[str], int]:
    """Return the calls in innermost loops, and how many of these loops compute on vectors of float32."""
    loops = list(innermost_loops(functions(assembly)[symbol]))
    calls = [line for loop in loops for line in loop if line.startswith("call")]
    return calls, sum(any(SINGLE_VECTOR.match(line) for line in loop) for loop in loops)


ELEMENTWISE = pytest.mark.parametrize("name", ["exp", "sigmoid", "softplus"])


def assert_uses_vectors_and_calls_nothing(folder: Path, kernel: str) -> None:
    ((assembly, symbol),) = (rest for name, *rest in records(folder) if name == kernel)
    calls, vectors = calls_and_vectors(assembly, symbol)
    assert calls == []
    assert vectors >= 1


@X86
@pytest.mark.needs_jit
@pytest.mark.slow
@ELEMENTWISE
def test_elementwise_functions_use_vectors_and_call_nothing(compiled_code, name):
    assert_uses_vectors_and_calls_nothing(compiled_code, f"losses.elementwise.{name}_entries")


@X86
@pytest.mark.needs_jit
@pytest.mark.slow
@pytest.mark.targets
@ELEMENTWISE
def test_elementwise_functions_use_vectors_on_other_targets(code_of_another_target, name):
    assert_uses_vectors_and_calls_nothing(code_of_another_target, f"losses.elementwise.{name}_entries")


@X86
@pytest.mark.needs_jit
def test_a_loop_that_calls_the_c_library_is_found():
    def library(x, out):
        for i in range(x.size):
            out[i] = np.exp(x[i])

    calls, vectors = calls_and_vectors(*assembly_of(library))
    assert calls
    assert vectors == 0
