"""DIFF-MF (arXiv 2601.05538): fusion driven by the difference of two modalities, in linear time.

The paper's figure, left to right, is this file, top to bottom: stems, `DifferenceGuidedExtraction` x N,
`ChannelExchange`, `SpatialExchange` at three levels, `Decoder`. The paper publishes no code, widths or loss,
so this is a re-implementation: each block says what is the figure's (fig) and what is our decision (own).

Inside the state space part features are `(B, h, w, C)`, channels last, at a quarter of the picture's sides;
the stems and the decoder work on `(B, C, H, W)`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffmf_cli.errors import WeightsError
from diffmf_cli.scan import selective_scan_2d
from diffmf_cli.threads import on_threads

MULTIPLE = 16  # stride 4 of the stems times two halvings of the spatial exchange
MARGIN = 4  # one token around every picture: scans through two modalities start unevenly, in a corner
_KEPT_STRIPS = 8  # of a map whose projections may stay in memory
_STEM_HALO = 8  # pixels that a strip sees beyond its rows: at least the receptive field's reach
_DECODER_HALO = 4  # the same in quarter-size rows
_CORE_ROWS = 160  # of a strip that one core works on alone: five times the decoder's halo on both sides
_CPU_TOKENS, _CUDA_TOKENS = 2**12, 2**18  # in a strip of rows of a large map, outside training


@dataclass(frozen=True)
class Config:
    """What the architecture leaves open; stored in every checkpoint.

    Attributes:
        width: channels C of the state space part.
        extraction: number N of difference-guided extractions.
        d_state: state size of the visual state space blocks.
        expand: inner width of a block over C.
    """

    width: int = 64
    extraction: int = 2
    d_state: int = 1
    expand: float = 1.5

    def __post_init__(self) -> None:
        sizes = (self.width, self.extraction, self.d_state)
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes)
        if (
            not whole
            or self.width % 16
            or not isinstance(self.expand, int | float)
            or not 0 < self.expand <= 8
        ):
            raise ValueError(f"{self}: width must be a multiple of 16, extraction and d_state at least 1")

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """The inverse of `to_dict`.

        Raises:
            WeightsError: if a value is missing, unknown or impossible.
        """
        if set(values) != {f.name for f in fields(cls)}:
            raise WeightsError(f"not a DIFF-MF configuration: {values}")
        try:
            return cls(**values)
        except ValueError as error:
            raise WeightsError(f"not a DIFF-MF configuration: {error}") from None


SIZES = {"lite": Config(width=32), "base": Config(width=64)}


def border_repeated(x: Tensor) -> Tensor:
    """`(B, C, h, w)` -> `(B, C, h + 2, w + 2)`: the outermost pixels once more."""
    if x.is_cuda:  # there F.pad forgets channels_last, and its gradient is not deterministic
        x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], 2)
        return torch.cat([x[..., :1], x, x[..., -1:]], 3)
    return F.pad(x, [1] * 4, mode="replicate")


class Conv3x3(nn.Conv2d):
    """3x3 convolution that repeats the border (own): zeros there would give a constant picture a frame."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, 3, stride=stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(border_repeated(x))


def _last(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution of channels-last features, `(B, h, w, C)` -> `(B, h, w, C')`, without a copy."""
    result: Tensor = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return result


def _depthwise(channels: int) -> Conv3x3:
    return Conv3x3(channels, channels, groups=channels)


def _row_strips(x: Tensor) -> list[slice]:
    """Strips of rows of `(B, h, w, C)`; one where training.

    They bound the memory of intermediate results; on a CPU a strip also fits into the cache of the core that
    works on it. How many there are does not depend on the machine, lest the result should.
    """
    h, w = x.shape[1:3]
    if torch.is_grad_enabled() or (x.is_cuda and h * w <= 8 * _CUDA_TOKENS):  # there strips would cost time
        return [slice(0, h)]
    tokens = _CUDA_TOKENS if x.is_cuda else _CPU_TOKENS
    step = -(-h // max(-(-h * w // tokens), min(2, h * w // 512), 1))
    return [slice(top, min(top + step, h)) for top in range(0, h, step)]


def _in_turn(work: Callable[[Any], Any], parts: list[Any]) -> list[Any]:
    return [work(part) for part in parts]


def _for_strips(work: Callable[[slice], None], x: Tensor) -> None:
    """Calls `work` with each strip of rows of `x`: on a CPU on threads of their own."""
    strips = _row_strips(x)
    run = on_threads if x.device.type == "cpu" else _in_turn
    run(work, strips)


class SS2D(nn.Module):
    """Gated selective scan along four raster orders: `(B, h, w, C)` -> `(B, h, w, C)`.

    Own: VMamba's second version, with one set of selective parameters for all orders. In three steps, because
    `prepare` and `finish` are local and can run on a few rows at a time; only `scan` sees the whole map.
    """

    def __init__(self, width: int, d_state: int, expand: float) -> None:
        super().__init__()
        self.inner, self.d_state, self.rank = int(expand * width), d_state, max(4, width // 16)
        self.in_proj = nn.Linear(width, 2 * self.inner)
        self.conv = _depthwise(self.inner)
        self.select = nn.Linear(self.inner, self.rank + 2 * d_state, bias=False)
        self.delta = nn.Linear(self.rank, self.inner, bias=False)
        # Step sizes log-uniform in [1e-3, 0.1] at the start, as in Mamba; the bias is the inverse softplus.
        step = torch.exp(torch.empty(self.inner).uniform_(-6.9078, -2.3026))
        self.delta_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, d_state + 1)).repeat(self.inner, 1))
        self.D = nn.Parameter(torch.ones(self.inner))
        self.norm = nn.LayerNorm(self.inner)
        self.out_proj = nn.Linear(self.inner, width)

    def prepare(self, x: Tensor, above: int = 0, below: int = 0) -> list[Tensor]:
        """Values `(B, h, w, d)`, step sizes `(B, h, w, d)` and B, C `(B, h, w, n)` each.

        Args:
            x: `(B, above + h + below, w, C)`.
            above: rows that only the convolution's border needs.
            below: likewise.
        """
        x = F.linear(x, self.in_proj.weight[: self.inner], self.in_proj.bias[: self.inner])
        x = F.silu(_last(self.conv, x)[:, above : x.shape[1] - below])
        rank, B, C = self.select(x).split([self.rank, self.d_state, self.d_state], -1)
        return [x, self.delta(rank), B, C]

    def scan(self, x: Tensor, delta: Tensor, B: Tensor, C: Tensor) -> Tensor:
        """The selective scan of what `prepare` gave: `(B, h, w, d)`; outside training in delta's place."""
        out = None if torch.is_grad_enabled() else delta
        return selective_scan_2d(x, delta, -torch.exp(self.A_log), B, C, self.D, self.delta_bias, out)

    def finish(self, x: Tensor, y: Tensor) -> Tensor:
        """Gate the scan's result `y` by `x` as it entered, and project: `(B, h, w, C)`."""
        z = F.linear(x, self.in_proj.weight[self.inner :], self.in_proj.bias[self.inner :])
        result: Tensor = self.out_proj(self.norm(y) * F.silu(z))
        return result


class VSSBlock(nn.Module):
    """Visual state space block: `(B, h, w, C)` -> `(B, h, w, C)`. Outside training it overwrites its input.

    `x += g1 * SS2D(LN x)`, then, unless `ffn` is false, `x += g2 * FFN(LN x)`. The gains start at 0.1 (own).
    """

    def __init__(self, width: int, config: Config, ffn: bool = True) -> None:
        super().__init__()
        self.norm_scan = nn.LayerNorm(width)
        self.scan = SS2D(width, config.d_state, config.expand)
        self.gain_scan = nn.Parameter(torch.full((width,), 0.1))
        self.ffn = None
        if ffn:
            self.ffn = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
            )
            self.gain_ffn = nn.Parameter(torch.full((width,), 0.1))

    def _finish(self, x: Tensor, y: Tensor) -> Tensor:
        x = x + self.gain_scan * self.scan.finish(self.norm_scan(x), y)
        if self.ffn is not None:
            x = x + self.gain_ffn * self.ffn(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self._finish(x, self.scan.scan(*self.scan.prepare(self.norm_scan(x))))
        for i in range(len(x)):  # one picture at a time: the scan's inputs are the peak of memory
            self._overwrite(x[i : i + 1])
        return x

    def _scanned(self, x: Tensor) -> Tensor:
        """The scan's result `(1, h, w, d)` for one picture, strip by strip where it can."""
        _, h, w, _ = x.shape
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        sizes = (self.scan.inner, self.scan.inner, self.scan.d_state, self.scan.d_state)
        inputs = [x.new_empty(1, h, w, n, dtype=dtype) for n in sizes]

        def prepare(rows: slice) -> None:
            above, below = min(1, rows.start), min(1, h - rows.stop)
            strip = self.norm_scan(x[:, rows.start - above : rows.stop + below])
            for whole, part in zip(inputs, self.scan.prepare(strip, above, below), strict=True):
                whole[:, rows] = part

        _for_strips(prepare, x)
        return self.scan.scan(*inputs)

    def _overwrite(self, x: Tensor) -> None:
        y = self._scanned(x)

        def finish(rows: slice) -> None:
            x[:, rows] = self._finish(x[:, rows], y[:, rows])

        _for_strips(finish, x)


class Stem(nn.Module):
    """One modality's convolutions: `(B, 1, H, W)` -> `(B, C, H/4, W/4)`. Fig: own stems; own: layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.full = Conv3x3(1, width // 4)
        self.to_half = Conv3x3(width // 4, width // 2, stride=2)
        self.to_quarter = Conv3x3(width // 2, width, stride=2)

    def detail(self, x: Tensor) -> Tensor:
        """Features at full resolution, which the decoder takes again: `(B, 1, H, W)` -> `(B, C/4, H, W)`."""
        return F.leaky_relu(self.full(x), 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.to_half(self.detail(x)), 0.1)
        result: Tensor = self.to_quarter(x)
        return result


class DifferenceGuidedExtraction(nn.Module):
    """Two `(B, h, w, C)` -> two `(B, h, w, C)`: what one modality has and the other lacks guides both.

    Fig: a block of its own for each modality; a shared convolution and shared block for both, whose outputs'
    difference guides. Own: how it guides. With `(G, R)` computed from the signed difference (negated for the
    visible side), `F = S * (1 + sigmoid(G)) + sigmoid(G) * R`, spatially; R starts at zero.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config.width
        self.ir, self.vis = VSSBlock(c, config), VSSBlock(c, config)
        self.shared_conv = Conv3x3(c, c)
        self.shared = VSSBlock(c, config)
        self.spread = _depthwise(c)
        self.guide = nn.ModuleDict({m: nn.Linear(c, 2 * c) for m in ("ir", "vis")})
        for linear in self.guide.values():
            assert isinstance(linear, nn.Linear)
            nn.init.zeros_(linear.weight[c:])
            nn.init.zeros_(linear.bias[c:])

    def _guided(self, own: Tensor, difference: Tensor, modality: str) -> Tensor:
        """Outside training it overwrites `own`."""
        linear = self.guide[modality]
        sign = 1 if modality == "ir" else -1

        def guided(own: Tensor, difference: Tensor) -> Tensor:
            gate, rest = linear(sign * difference).chunk(2, -1)
            gate = torch.sigmoid(gate)
            return own * (1 + gate) + gate * rest

        if torch.is_grad_enabled():
            return guided(own, difference)

        def strip(rows: slice) -> None:
            own[:, rows] = guided(own[:, rows], difference[:, rows])

        _for_strips(strip, own)
        return own

    def forward(self, ir: Tensor, vis: Tensor) -> tuple[Tensor, Tensor]:
        shared_ir, shared_vis = self.shared(_last(self.shared_conv, torch.cat([ir, vis]))).chunk(2)
        difference = _last(self.spread, shared_ir - shared_vis)
        del shared_ir, shared_vis
        return (
            self._guided(self.ir(ir), difference, "ir"),
            self._guided(self.vis(vis), difference, "vis"),
        )


class ChannelExchange(nn.Module):
    """Two `(B, h, w, C)` -> two `(B, h, w, C)`: each modality is read with the other's B and C.

    Fig: projections to x, B and C; B and C swapped, x kept, a state space model for each row; beside it omega
    from both features, reweighting the two results. Own: state space duality in its order-free form (VSSD),
    `KV = sum(w x B^T) / sum(w)` with `w = Delta |A|` and `y = KV C + D x`, so that cost is linear and the
    result does not grow with the picture; Delta and the gate z stay with x; heads of 16 channels, state 16.
    """

    HEAD, STATE = 16, 16

    def __init__(self, config: Config) -> None:
        super().__init__()
        c, heads = config.width, config.width // self.HEAD
        self.sizes = [c, c, self.STATE, self.STATE, heads]
        mixed = c + 2 * self.STATE
        self.norm = nn.ModuleDict({m: nn.LayerNorm(c) for m in ("ir", "vis")})
        self.in_proj = nn.ModuleDict({m: nn.Linear(c, sum(self.sizes)) for m in ("ir", "vis")})
        self.conv = nn.ModuleDict({m: _depthwise(mixed) for m in ("ir", "vis")})
        self.rate_log = nn.ParameterDict({m: nn.Parameter(torch.zeros(heads)) for m in ("ir", "vis")})
        self.D = nn.ParameterDict({m: nn.Parameter(torch.ones(heads, 1)) for m in ("ir", "vis")})
        self.norm_out = nn.ModuleDict({m: nn.LayerNorm(c) for m in ("ir", "vis")})
        self.out_proj = nn.ModuleDict({m: nn.Linear(c, c) for m in ("ir", "vis")})
        self.omega = nn.Sequential(nn.Linear(4 * c, c), nn.GELU(), nn.Linear(c, 2 * c))

    def _project(self, features: dict[str, Tensor], rows: slice) -> dict[str, tuple[Tensor, ...]]:
        """Of both modalities: gate z and x `(B, L, C)`, B and C `(B, L, 16)`, weight `(B, L, heads)`."""
        projected = {}
        for m, feature in features.items():
            above, below = min(1, rows.start), min(1, feature.shape[1] - rows.stop)
            strip = self.norm[m](feature[:, rows.start - above : rows.stop + below])
            inside = slice(above, strip.shape[1] - below)
            z, mixed, delta = self.in_proj[m](strip).split(
                [self.sizes[0], sum(self.sizes[1:4]), self.sizes[4]], -1
            )
            mixed = F.silu(_last(self.conv[m], mixed)[:, inside])
            weight = F.softplus(delta[:, inside].float()) * torch.exp(self.rate_log[m])
            parts = (z[:, inside], *mixed.split(self.sizes[1:4], -1), weight)
            projected[m] = tuple(t.flatten(1, 2) for t in parts)
        return projected

    def _omega(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights in [0, 1] of both results: `(B, C)` each."""
        normed = [self.norm[m](t) for m, t in features.items()]
        pooled = [t.mean((1, 2)) for t in normed] + [t.amax((1, 2)) for t in normed]
        both = torch.sigmoid(self.omega(torch.cat(pooled, -1)))
        return dict(zip(features, both.chunk(2, -1), strict=True))

    def forward(self, ir: Tensor, vis: Tensor) -> tuple[Tensor, Tensor]:
        features = {"ir": ir, "vis": vis}
        other = {"ir": "vis", "vis": "ir"}
        strips = _row_strips(ir)
        run = on_threads if ir.device.type == "cpu" else _in_turn
        small = len(strips) <= _KEPT_STRIPS  # then the projections stay, instead of being computed twice

        def sums(rows: slice) -> tuple[dict[str, tuple[Tensor, ...]], dict[str, Tensor], dict[str, Tensor]]:
            projected = self._project(features, rows)
            kv, total = {}, {}
            for m in features:
                _, x, _, _, weight = projected[m]
                B = projected[other[m]][2]  # swapped
                with torch.autocast(x.device.type, enabled=False):  # sums over all pixels
                    weighted = (x.float().unflatten(-1, (-1, self.HEAD)) * weight[..., None]).flatten(2)
                    kv[m] = torch.einsum("blc,bln->bnc", weighted, B.float())
                total[m] = weight.sum(1)
            return projected if small else {}, kv, total

        parts = run(sums, strips)
        kv = {}
        for m in features:
            total = sum(part[2][m] for part in parts)
            kv[m] = sum(part[1][m] for part in parts) / total.repeat_interleave(self.HEAD, -1)[:, None]
        omega = self._omega(features)

        def read(rows: slice, projected: dict[str, tuple[Tensor, ...]]) -> dict[str, Tensor]:
            projected = projected or self._project(features, rows)
            out = {}
            for m, feature in features.items():
                z, x, _, _, _ = projected[m]
                C = projected[other[m]][3]  # swapped
                with torch.autocast(x.device.type, enabled=False):
                    skip = (self.D[m] * x.float().unflatten(-1, (-1, self.HEAD))).flatten(2)
                    y = torch.baddbmm(skip, C.float(), kv[m])
                y = self.out_proj[m](self.norm_out[m](y) * F.silu(z)).view(feature[:, rows].shape)
                out[m] = feature[:, rows] + 2 * omega[m][:, None, None] * y
            return out

        if torch.is_grad_enabled():  # one strip
            whole = read(strips[0], parts[0][0])
        else:  # a list of the strips' results, out of many threads, would leave holes in memory
            whole = {m: torch.empty_like(feature) for m, feature in features.items()}

            def write(strip: tuple[slice, dict[str, tuple[Tensor, ...]]]) -> None:
                for m, y in read(*strip).items():
                    whole[m][:, strip[0]] = y

            run(write, [(rows, part[0]) for rows, part in zip(strips, parts, strict=True)])
        return whole["ir"], whole["vis"]


class SpatialExchange(nn.Module):
    """Two `(B, h, w, C)` -> one `(B, h, w, C)`: scans that walk through both modalities, at one level.

    Fig: three layouts, each through its own block: columns interleaved (IR first), side by side, stacked
    along channels; concatenated, then a linear layer. Own: blocks without FFN.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config.width
        self.column, self.row = VSSBlock(c, config, ffn=False), VSSBlock(c, config, ffn=False)
        self.stack = VSSBlock(2 * c, config, ffn=False)
        self.linear = nn.Linear(6 * c, c)

    def forward(self, ir: Tensor, vis: Tensor) -> Tensor:
        # The linear layer of the concatenation, map by map: no six-fold copy.
        c = ir.shape[-1]
        stacked, first, second, left, right = self.linear.weight.split([2 * c, c, c, c, c], 1)
        out = F.linear(self.stack(torch.cat([ir, vis], -1)), stacked, self.linear.bias)
        columns = self.column(torch.stack([ir, vis], 3).flatten(2, 3)).unflatten(2, (-1, 2))
        out = out + F.linear(columns[..., 0, :], first) + F.linear(columns[..., 1, :], second)
        del columns
        rows = self.row(torch.cat([ir, vis], 2))
        return out + F.linear(rows[:, :, : ir.shape[2]], left) + F.linear(rows[:, :, ir.shape[2] :], right)


class Decoder(nn.Module):
    """`(B, 3C, H/4, W/4)` and both stems' details `(B, C/4, H, W)` -> `(B, 1, H, W)` in [0, 1].

    Own, all of it; the skip from the stems is not in the figure: the state space part runs at a quarter of
    the picture's sides, and detail finer than that has no other way through.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(3 * width, width, 1)
        self.residual = nn.Sequential(
            Conv3x3(width, width),
            nn.LeakyReLU(0.1, inplace=True),
            Conv3x3(width, width),
        )
        self.to_half = Conv3x3(width, 2 * width)
        self.to_full = Conv3x3(width // 2, width)
        self.merge = Conv3x3(3 * width // 4, width // 4)
        self.out = Conv3x3(width // 4, 1)

    def forward(self, x: Tensor, ir_detail: Tensor, vis_detail: Tensor) -> Tensor:
        x = self.reduce(x)
        x = x + self.residual(x)
        x = F.leaky_relu(F.pixel_shuffle(self.to_half(x), 2), 0.1)
        x = F.leaky_relu(F.pixel_shuffle(self.to_full(x), 2), 0.1)
        x = F.leaky_relu(self.merge(torch.cat([x, ir_detail, vis_detail], 1)), 0.1)
        return torch.sigmoid(self.out(x).float())


class DiffMF(nn.Module):
    """The whole network. See `forward`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        c = config.width
        self.stem_ir, self.stem_vis = Stem(c), Stem(c)
        self.extraction = nn.ModuleList(DifferenceGuidedExtraction(config) for _ in range(config.extraction))
        self.channel_exchange = ChannelExchange(config)
        self.spatial_exchange = nn.ModuleDict(
            {level: SpatialExchange(config) for level in ("high", "middle", "low")}
        )
        self.decoder = Decoder(c)

    def forward(self, ir: Tensor, vis: Tensor, tile: int = 0) -> Tensor:
        """Fuses two registered pictures of any size.

        Args:
            ir: `(B, 1, H, W)` in [0, 1].
            vis: `(B, 1, H, W)` in [0, 1], luma.
            tile: if not 0, the full-resolution stages run in strips of about `tile` x `tile` pixels. They are
                local and the strips overlap by their reach, so the result is the same; the state space part
                always sees the whole picture.

        Returns:
            `(B, 1, H, W)` in [0, 1], float32.
        """
        h, w = ir.shape[-2:]
        rows, columns = (reflected(n, ir.device) for n in (h, w))
        ir, vis = (t[:, :, rows][..., columns] for t in (ir, vis))
        fused = self.fuse_padded(ir, vis, tile)
        return fused[..., MARGIN : MARGIN + h, MARGIN : MARGIN + w].contiguous()

    def fuse_padded(self, ir: Tensor, vis: Tensor, tile: int = 0) -> Tensor:
        """`forward` without a margin, for sides that are multiples of 16."""
        height, width = ir.shape[-2:]
        step, run = height, _in_turn
        if tile:
            step = min(height, max(MULTIPLE, tile * tile // width // MULTIPLE * MULTIPLE))
        elif ir.device.type == "cpu" and not torch.is_grad_enabled():
            # A strip for each core, unless they would be so low that overlaps cost more than they bring.
            count = torch.get_num_threads()
            if height >= count * _CORE_ROWS:
                step, run = -(-height // (count * MULTIPLE)) * MULTIPLE, on_threads
        strips = [(top, min(top + step, height)) for top in range(0, height, step)]
        features = self.exchange(
            torch.cat(run(lambda s: self._stem_strip(self.stem_ir, ir, *s), strips), 2),
            torch.cat(run(lambda s: self._stem_strip(self.stem_vis, vis, *s), strips), 2),
        )
        return torch.cat(run(lambda s: self._decoder_strip(features, ir, vis, *s), strips), 2)

    def exchange(self, ir: Tensor, vis: Tensor) -> Tensor:
        """The state space part: two `(B, C, h, w)` from the stems -> `(B, 3C, h, w)` for the decoder."""
        ir, vis = ir.permute(0, 2, 3, 1).contiguous(), vis.permute(0, 2, 3, 1).contiguous()
        for stage in self.extraction:
            ir, vis = stage(ir, vis)
        ir, vis = self.channel_exchange(ir, vis)
        high = self.spatial_exchange["high"](ir, vis)
        ir, vis = _halved(ir), _halved(vis)
        middle = self.spatial_exchange["middle"](ir, vis)
        low = self.spatial_exchange["low"](_halved(ir), _halved(vis))
        high, middle, low = (t.permute(0, 3, 1, 2) for t in (high, middle, low))
        middle = torch.cat([middle, _doubled(low)], 1)
        return torch.cat([high, _doubled(middle)], 1)

    @staticmethod
    def _stem_strip(stem: Stem, picture: Tensor, top: int, bottom: int) -> Tensor:
        """Rows `top` to `bottom` of the stem's output: `(B, C, (bottom - top) / 4, W / 4)`."""
        start, end = max(0, top - _STEM_HALO), min(picture.shape[2], bottom + _STEM_HALO)
        strip: Tensor = stem(picture[:, :, start:end].contiguous(memory_format=torch.channels_last))
        return strip[:, :, (top - start) // 4 : (bottom - start) // 4]

    def _decoder_strip(self, features: Tensor, ir: Tensor, vis: Tensor, top: int, bottom: int) -> Tensor:
        """Rows `top` to `bottom` of the fused picture: `(B, 1, bottom - top, W)`."""
        start, end = max(0, top // 4 - _DECODER_HALO), min(features.shape[2], bottom // 4 + _DECODER_HALO)
        # One more row of pixels: the details' own convolution reaches it.
        first, last = max(0, 4 * start - 1), min(ir.shape[2], 4 * end + 1)
        details = [
            stem.detail(t[:, :, first:last])[:, :, 4 * start - first : 4 * end - first]
            for stem, t in ((self.stem_ir, ir), (self.stem_vis, vis))
        ]
        strip: Tensor = self.decoder(features[:, :, start:end], *details)
        return strip[:, :, top - 4 * start : bottom - 4 * start]


def blocks_of(n: int) -> int:
    """How many times 16 pixels a side of `n` has with its margins, rounded up."""
    return (n + 2 * MARGIN + MULTIPLE - 1) // MULTIPLE


def reflected(n: int, device: torch.device | str = "cpu", blocks: int | None = None) -> Tensor:
    """Indices that pad `n` pixels by reflection: a margin on both sides, then up to a multiple of 16.

    Reflection goes on, over and over, where the picture is smaller than its padding.

    Args:
        n: pixels of a side.
        device: of the indices.
        blocks: how many times 16 they are; `blocks_of(n)` unless a traced program counts for itself.
    """
    padded = MULTIPLE * (blocks_of(n) if blocks is None else blocks)
    # A tensor, because an exported program reckons it for each picture: a single pixel has a period too.
    period = torch.full((), 2 * (n - 1), device=device).clamp(min=1)
    index = (torch.arange(padded, device=device) - MARGIN) % period
    return torch.minimum(index, period - index)


def _halved(x: Tensor) -> Tensor:
    """`(B, h, w, C)` -> `(B, h / 2, w / 2, C)`."""
    return F.avg_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def _doubled(x: Tensor) -> Tensor:
    """`(B, C, h, w)` -> `(B, C, 2 h, 2 w)`."""
    if x.is_cuda and x.requires_grad:  # there the gradient of F.interpolate is not deterministic
        return doubled_by_slices(x)
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def doubled_by_slices(x: Tensor) -> Tensor:
    """Bilinear, `(B, C, h, w)` -> `(B, C, 2 h, 2 w)`: three quarters of a pixel, one of its neighbour."""
    for axis in (2, 3):
        n = x.shape[axis]
        before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, n - 1)], axis)
        after = torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)], axis)
        x = torch.stack([torch.lerp(x, t, 0.25) for t in (before, after)], axis + 1).flatten(axis, axis + 1)
    return x
