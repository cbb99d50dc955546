"""The network as a program of its own, which runs without this package: ONNX, or a torch.export program.

Both hold the whole way from two pictures to one, for any height and width: padding by reflection, network,
cropping. ONNX is written by `diffmf_cli.model.onnx_graph`; the torch program is traced along the plain
operations that training runs, with the loops of `diffmf_cli.scan.exportable`.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from diffmf_cli import scan
from diffmf_cli.errors import DiffmfError
from diffmf_cli.model.network import MARGIN, DiffMF, blocks_of, reflected

if TYPE_CHECKING:
    from torch.export import ExportedProgram

TOLERANCE = 1e-5  # of values in [0, 1]; `base` comes to 5e-7
METADATA_FILE = "metadata.json"  # inside a .pt2
_LARGEST = 2**16  # a side in pixels
_TRACED_SIZE = 97, 121  # with no common factors
_CHECKED_SIZES = (64, 96), (5, 47), (61, 26)


class _Whole(nn.Module):
    """`DiffMF` without its strips: `ir` and `vis` `(1, 1, H, W)` in [0, 1] -> `(1, 1, H, W)`."""

    def __init__(self, network: DiffMF) -> None:
        super().__init__()
        self.network = network

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        """See `DiffMF.forward`."""
        h, w = ir.shape[-2:]
        rows, columns = (reflected(n, ir.device, _counted_blocks(n)) for n in (h, w))
        ir, vis = (t.index_select(2, rows).index_select(3, columns) for t in (ir, vis))
        stem_ir, stem_vis = self.network.stem_ir, self.network.stem_vis
        features = self.network.exchange(stem_ir(ir), stem_vis(vis))
        fused: Tensor = self.network.decoder(features, stem_ir.detail(ir), stem_vis.detail(vis))
        return fused[..., MARGIN : MARGIN + h, MARGIN : MARGIN + w]


def _counted_blocks(n: int) -> int:
    """`blocks_of(n)` as a number of its own while tracing: counted from a tensor, it has no formula.

    What all later sizes are made of would otherwise be the quotient of a sum, in each of thousands of
    conditions, and one or two tokens a side cases of their own.
    """
    blocks: int = torch.full((), blocks_of(n)).item()  # type: ignore[assignment] # of integers
    torch._check(blocks >= 1)
    torch._check(blocks <= blocks_of(_LARGEST))
    return blocks


def to_torch(network: DiffMF, metadata: dict[str, str]) -> bytes:
    """A `.pt2` file, for `torch.export.load`.

    Args:
        network: on the CPU, float32. Its parameters take no gradients afterwards.
        metadata: what the file says of itself.
    """
    from torch._dynamo import config
    from torch.export import Dim, export, save

    whole = _Whole(network.requires_grad_(False)).eval()
    sides = {2: Dim("height", min=1, max=_LARGEST), 3: Dim("width", min=1, max=_LARGEST)}
    picture = torch.zeros(1, 1, *_TRACED_SIZE)
    file = io.BytesIO()
    with _silence():
        # With gradients enabled the network takes the plain way, without strips and writing in place.
        # The cache of what operations give takes longer to ask than to do without, where sizes are symbols.
        uncached = config.patch(fake_tensor_cache_enabled=False)
        with torch.enable_grad(), scan.using(scan.EXPORT), uncached:
            program = export(
                whole,
                (picture, picture.clone()),
                dynamic_shapes=(sides, sides),
                strict=False,
            )
        for graph in _graphs(program):
            for node in graph.nodes:  # where each operation comes from, with paths of this machine
                for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node"):
                    node.meta.pop(key, None)
        save(program, file, extra_files={METADATA_FILE: json.dumps(metadata, indent=1)})
    return file.getvalue()


def to_onnx(network: DiffMF, metadata: dict[str, str]) -> bytes:
    """An ONNX file with inputs `ir` and `vis` and output `fused`; arguments as of `to_torch`."""
    from diffmf_cli.model import onnx_graph

    return onnx_graph.build(network, metadata)


def largest_difference(network: DiffMF, content: bytes, format: str) -> float:
    """Of a file's results from the network's own, on the CPU, over random pictures of several sizes.

    Args:
        network: what was exported.
        content: of the file.
        format: `onnx` or `torch`.

    Raises:
        DiffmfError: if the file's results are no pictures of those sizes.
    """
    run = _runner(content, format)
    random = torch.Generator().manual_seed(0)
    worst = 0.0
    for size in _CHECKED_SIZES:
        ir, vis = (_picture(size, random) for _ in range(2))
        with torch.inference_mode(), _silence():
            expected, got = network(ir, vis), run(ir, vis)
        if got.shape != expected.shape or not got.isfinite().all():
            raise DiffmfError(f"the exported network failed at {size[1]}x{size[0]} pixels; please report it")
        worst = max(worst, (got - expected).abs().max().item())
    return worst


def _runner(content: bytes, format: str) -> Callable[[Tensor, Tensor], Tensor]:
    if format == "torch":
        with _silence():
            module = torch.export.load(io.BytesIO(content)).module()
        return lambda ir, vis: module(ir, vis)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda ir, vis: torch.from_numpy(session.run(None, {"ir": ir.numpy(), "vis": vis.numpy()})[0])


def _picture(size: tuple[int, int], random: torch.Generator) -> Tensor:
    """`(1, 1, H, W)` in [0, 1] with coarse and fine structure."""
    coarse = torch.rand(1, 1, 5, 6, generator=random)
    smooth = nn.functional.interpolate(coarse, size, mode="bilinear")
    return (0.9 * smooth + 0.1 * torch.rand(smooth.shape, generator=random)).clamp(0, 1)


def _graphs(program: "ExportedProgram") -> Iterator[torch.fx.Graph]:
    """Of the program and of its loops' bodies."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            yield module.graph


@contextmanager
def _silence() -> Iterator[None]:
    """Exporters talk at length of their own affairs, on stderr."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
