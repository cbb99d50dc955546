"""The scan of state size 1 in one launch, on Hopper processors: maps lie in the registers of the whole chip.

Values are read once, where the Triton kernels read them twice, and programs tell each other what tiles make
of states. All programs of a job have to be on the chip at once, so the launch is a cooperative one. The
source is CUDA C++ (`resident.cu`), compiled by the NVRTC that comes with torch; Triton's cache keeps it.
"""

import ctypes
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_CAPABILITY = 9  # major: later processors would do, but have not been tried
_SIDE = 16  # tokens of a tile
_COLUMNS, _ROWS = 4, 8  # of a warp
_LINES = 8  # that a thread chains
_WARPS = 8
_THREADS = 32 * _WARPS
_PROGRAMS = 2  # of a processor: the kernel's launch bounds
_MOST_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_HALF, _FLOAT = 6, 7  # CU_TENSOR_MAP_DATA_TYPE_*
_L2_128_BYTES = 2  # CU_TENSOR_MAP_L2_PROMOTION_*
_TOO_LARGE = 720  # CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE
_KEPT = 8  # shapes of which a place in a network keeps the memory
_OPTIONS = "--gpu-architecture=sm_90", "--use_fast_math", "--std=c++17"
_HEADER = "hopper.cuh"


class Memory(OrderedDict[tuple[int, ...], tuple[Tensor, ...]]):
    """What programs of launches that follow each other tell each other, by shape and places.

    Each launch needs it as the one before left it, so launches that may run side by side need one each.
    Whoever captures a launch as a CUDA graph keeps the tensors as long as the graph.

    Attributes:
        rounds: how often a launch's programs should fill the chip, for it to be faster than the Triton
            kernels: once where it runs alone; what runs beside those would use what they leave.
    """

    def __init__(self, rounds: int = 1) -> None:
        super().__init__()
        self.rounds = rounds

    def of(self, device: torch.device, shape: tuple[int, int, int, int], places: int) -> tuple[Tensor, ...]:
        """Lines, states and counters for maps `(P, h, w, d)` in so many places: see `resident.cu`."""
        key = *shape, places
        if key in self:
            self.move_to_end(key)
            return self[key]
        maps, h, w, d = shape
        of_place = 2 * _tiles(h) * _tiles(w) * 32 * _SIDE
        made = (
            torch.zeros(places * 3 * of_place, device=device),
            torch.zeros(places * (2 * of_place + 64), device=device),
            torch.zeros(_jobs(maps, d) * 2 + places, device=device, dtype=torch.int32),
        )
        # A captured launch's zeros come with each replay.
        if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
            self[key] = made
            if len(self) > _KEPT:
                self.popitem(last=False)
        return made


@dataclass
class _Kernel:
    function: ctypes.c_void_p
    shared: int
    resident: int  # programs that the device holds


def _tiles(n: int) -> int:
    return -(-n // _SIDE)


def _of_map(channels: int) -> int:
    """Channels in a row of a job that are of one map: an odd multiple of 16 goes on with the next map."""
    return 16 if channels % 32 == 16 else 32


def _jobs(maps: int, channels: int) -> int:
    """How many jobs of 32 channels."""
    part = _of_map(channels)
    return -(-maps * -(-channels // part) * part // 32)


def team_of_warps(h: int, w: int) -> int | None:
    """How many warps chain the lines of a channel; None where a thread would have too many."""

    def lines(threads: int, tiles: int, beside: int) -> int:
        if tiles * _SIDE > threads:
            return _LINES + 1
        sharers = 1 << (threads // (tiles * _SIDE)).bit_length() - 1  # of a position's lines: a power of two
        return -(-beside // sharers)

    high, wide = _tiles(h), _tiles(w)
    for team in (1, 2, 4, 8):
        if max(lines(32 * team, high, wide), lines(32 * team, wide, high)) <= _LINES:
            return team
    return None


@cache
def _library(name: str) -> Any:
    return ctypes.CDLL(name)


@cache
def _nvrtc() -> Any:
    major = (torch.version.cuda or "").split(".")[0]
    names = [f"libnvrtc.so.{major}"]
    packages = Path(torch.__file__).parent.parent / "nvidia"
    names += [
        str(p) for folder in ("cuda_nvrtc", f"cu{major}") for p in (packages / folder / "lib").glob(names[0])
    ]
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _check(code: int, what: str) -> None:
    if code:
        raise RuntimeError(f"CUDA driver error {code} in {what}")


def _compiled(channels: int, half: bool, softplus: bool) -> bytes | None:
    """The kernel's machine code, or None where it cannot be made: the Triton kernels give the same."""
    nvrtc = _nvrtc()
    if nvrtc is None:
        return None
    version = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(*(ctypes.byref(v) for v in version))
    source, header = ((Path(__file__).parent / name).read_bytes() for name in ("resident.cu", _HEADER))
    options = [*_OPTIONS, f"-DCHANNELS={channels}", *["-DHALF"] * half, *["-DSOFTPLUS"] * softplus]
    key = hashlib.sha256(b"\0".join([source, header, repr((options, [v.value for v in version])).encode()]))
    kept = import_module("triton.runtime.cache").get_cache_manager(key.hexdigest())
    name = "resident.cubin"
    if path := kept.get_file(name):
        return Path(path).read_bytes()
    program = ctypes.c_void_p()
    headers, names = (ctypes.c_char_p * 1)(header), (ctypes.c_char_p * 1)(_HEADER.encode())
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"resident.cu", 1, headers, names):
        return None
    arguments = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    if nvrtc.nvrtcCompileProgram(program, len(options), arguments):
        return None  # an NVRTC before CUDA 12
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
    code = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetCUBIN(program, code)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    kept.put(code.raw, name, binary=True)
    return code.raw


@cache
def _kernel(device: int, channels: int, half: bool, softplus: bool) -> _Kernel | None:
    code = _compiled(channels, half, softplus)
    if code is None:
        return None
    cuda = _library("libcuda.so.1")
    with torch.cuda.device(device):
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        _check(cuda.cuModuleLoadData(ctypes.byref(module), code), "cuModuleLoadData")
        _check(cuda.cuModuleGetFunction(ctypes.byref(function), module, b"scan"), "cuModuleGetFunction")
        shared, address, size = ctypes.c_int(), ctypes.c_uint64(), ctypes.c_size_t()
        symbol = ctypes.byref(address), ctypes.byref(size), module, b"shared_bytes"
        _check(cuda.cuModuleGetGlobal_v2(*symbol), "cuModuleGetGlobal")
        _check(cuda.cuMemcpyDtoH_v2(ctypes.byref(shared), address, size), "cuMemcpyDtoH")
        _check(cuda.cuFuncSetAttribute(function, _MOST_SHARED, shared), "cuFuncSetAttribute")
        number = ctypes.c_int()
        arguments = ctypes.byref(number), function, _THREADS, ctypes.c_size_t(shared.value)
        _check(cuda.cuOccupancyMaxActiveBlocksPerMultiprocessor(*arguments), "cuOccupancy")
        processors = torch.cuda.get_device_properties(device).multi_processor_count
    return _Kernel(function, shared.value, number.value * processors)


def _fitting(x: Tensor, delta: Tensor, A: Tensor, softplus: bool, rounds: int) -> tuple[_Kernel, int] | None:
    """The kernel and the team of warps for a scan that is faster like this."""
    maps, h, w, d = x.shape
    if not x.is_cuda or torch.cuda.get_device_capability(x.device)[0] != _CAPABILITY:
        return None
    if A.shape[2] != 1 or d % 8 or x.dtype != delta.dtype or x.dtype not in (torch.float16, torch.float32):
        return None
    team = team_of_warps(h, w)
    if team is None or (x.data_ptr() | delta.data_ptr()) % 16:
        return None
    tiles = _tiles(h) * _tiles(w)
    chip = _PROGRAMS * torch.cuda.get_device_properties(x.device).multi_processor_count
    if tiles > chip or tiles * maps * d < rounds * chip * 32:
        return None  # before anything is compiled
    kernel = _kernel(x.device.index or 0, d, x.dtype == torch.float16, softplus)
    if kernel is None or tiles > kernel.resident:
        return None
    return kernel, team


def _map(t: Tensor) -> tuple[Any, int]:
    """A CUtensorMap of `(P, h, w, d)`, and its address."""
    raw = ctypes.create_string_buffer(256)
    at = (ctypes.addressof(raw) + 63) // 64 * 64
    kind = _HALF if t.dtype == torch.float16 else _FLOAT
    sizes = (ctypes.c_uint64 * 4)(*reversed(t.shape))
    strides = (ctypes.c_uint64 * 3)(*(s * t.element_size() for s in reversed(t.stride()[:-1])))
    box = (ctypes.c_uint32 * 4)(_of_map(t.shape[-1]), _COLUMNS, _ROWS, 1)
    steps = (ctypes.c_uint32 * 4)(1, 1, 1, 1)
    encode = _library("libcuda.so.1").cuTensorMapEncodeTiled
    address = ctypes.c_void_p(t.data_ptr())
    _check(
        encode(ctypes.c_void_p(at), kind, 4, address, sizes, strides, box, steps, 0, 0, _L2_128_BYTES, 0),
        "cuTensorMap",
    )
    return raw, at


def scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor | None,
    out: Tensor,
    shared: int,
    memory: Memory,
) -> bool:
    """`triton_scan.scan_tiles`, whose arguments these are, where it is faster like this.

    Returns:
        False where it is not; then nothing was done.
    """
    fitting = _fitting(x, delta, A, delta_bias is not None, memory.rounds)
    if fitting is None:
        return False
    kernel, team = fitting
    maps, h, w, d = x.shape
    B, C = B.float(), C.float()
    tiles = _tiles(h) * _tiles(w)
    places = min(_jobs(maps, d), kernel.resident // tiles)
    maps_of_values = _map(x), _map(delta)
    tensors = (
        (D if delta_bias is None else delta_bias),
        A,
        B,
        C,
        D,
        out,
        *memory.of(x.device, (maps, h, w, d), places),
    )
    sizes = maps, h, w, A.shape[0], shared, places, team
    values = *(ctypes.c_void_p(t.data_ptr()) for t in tensors), *(ctypes.c_int(v) for v in sizes)
    addresses = [at for _, at in maps_of_values] + [ctypes.addressof(v) for v in values]
    arguments = (ctypes.c_void_p * len(addresses))(*addresses)
    stream = ctypes.c_void_p(torch.cuda.current_stream(x.device).cuda_stream)
    launch = _library("libcuda.so.1").cuLaunchCooperativeKernel
    grid, block = (places * tiles, 1, 1), (_THREADS, 1, 1)
    with torch.cuda.device(x.device):
        code = launch(kernel.function, *grid, *block, kernel.shared, stream, arguments)
    if code == _TOO_LARGE:  # the process may use a part of the chip only
        kernel.resident = 0
        return False
    _check(code, "the scan's launch")
    return True
