// The scan of maps of state size 1 in one launch; see `resident_scan.py`.
//
// A job is 32 channels of a map. Its tiles of 16x16 tokens have a program each, all of which are on the chip at once, so
// that they may wait for each other; several jobs have programs there, in places, and places go from job to job. A thread
// has 8x4 tokens of a channel in registers. First it finds what its parts of rows and columns, called lines, make of the
// states that enter them. Then some programs chain all lines of a kind of a channel, and post the states that enter each
// program's lines. Last it walks again with these states. The next job's values come into shared memory meanwhile.
//
// Programs tell each other values, not that values are there: the last bit of a float is the job's tag, which alternates
// from job to job of a place, and from launch to launch. It costs half a unit in the last place, and saves the fences.
//
// Given by the compiler's command line: CHANNELS, and HALF and SOFTPLUS where they hold.

#define SIDE 16     // of a tile
#define ROWS 8      // of a thread
#define COLUMNS 4
#define DOWN (SIDE / ROWS)        // warps of a program
#define ACROSS (SIDE / COLUMNS)
#define WARPS (DOWN * ACROSS)
#define THREADS (32 * WARPS)
#define LINES 8     // that a thread chains
#define LANES 32    // channels of a job
#define KINDS 2     // of lines: rows and columns
#define TASKS (KINDS * LANES)
#define GROUPS ((CHANNELS + LANES - 1) / LANES)
#define LINE_VALUES (3 * LANES * SIDE)   // of a tile, of a kind: decay, ahead, back
#define STATE_VALUES (2 * LANES * SIDE)  // ahead, back
#define LOG2E 1.4426950408889634f
#ifndef EMULATED
#include "hopper.cuh"
#endif

struct Line {  // of a channel: what is left of a state, what is added to it ahead and back; four lie 8 banks apart
  float decay[LANES], ahead[LANES], back[LANES], unused[2];
};
struct Shared {
  T x[WARPS][ROWS * COLUMNS][LANES], delta[WARPS][ROWS * COLUMNS][LANES];
  Line rows[ACROSS][SIDE], columns[DOWN][SIDE];  // of each warp
  float B[WARPS][ROWS][COLUMNS], C[2][WARPS][ROWS][COLUMNS];
  float entering[KINDS][2][SIDE][LANES + 2];  // ahead, back
  float of_warps[3][WARPS];
  Gate for_delta[WARPS], for_x[WARPS];
  int tile, down, across;  // of this program
};

DEVICE float step_size(float delta, float bias) {
#ifdef SOFTPLUS  // to 2e-7, with the digits of small results
  const float x = delta + bias, z = exp2_(-fabsf(x) * LOG2E);
  float s = 0.17745204f + z * (-0.10768117f + z * (0.044089238f - z * 0.0085390963f));
  s = 0.99999981f + z * (-0.49997405f + z * (0.33275478f + z * (-0.2449545f + z * s)));
  return fmaxf(x, 0.f) + z * s;
#else
  return delta;
#endif
}

// The state that an order begins with: `recurrence.start_states`.
DEVICE float fixed_point(float x, float delta, float B, float rate) {
  const float decay = fmaxf(delta * rate, 1e-12f);
  const float series = 1.f + decay * (0.5f + decay * (0.083333333f - decay * decay * 0.0013888889f));
  return x * B / rate * (decay < 0.3f ? series : decay / (1.f - exp2_(-decay * LOG2E)));
}

DEVICE float tagged(float v, int tag) { return of_bits((bits(v) & ~1) | tag); }
DEVICE bool is_tagged(float v, int tag) { return !((bits(v) ^ tag) & 1); }

// Lanes without a channel do as the last one does, with values of zero.
DEVICE int known(int channel) { return CHANNELS % LANES ? min(channel, CHANNELS - 1) : channel; }

DEVICE void put(Line& line, int lane, float decay, float ahead, float back) {
  line.decay[lane] = decay;
  line.ahead[lane] = ahead;
  line.back[lane] = back;
}

// Appends a line to `decay`, `ahead` and `back`.
DEVICE void append(float& decay, float& ahead, float& back, float a, float b, float c) {
  ahead = a * ahead + b;
  back += decay * c;
  decay *= a;
}

// Of a warp's lines: those before each lane's own as `decay_before` and `ahead`, those behind, and all.
DEVICE void chain_lanes(float& decay_before, float& ahead, float& decay_behind, float& back, float (&all)[3]) {
  const int lane = thread_index() & 31;
#pragma unroll
  for (int k = 1; k < 32; k *= 2) {
    float a = up(decay_before, k), b = up(ahead, k);
    if (lane >= k) {
      ahead = decay_before * b + ahead;
      decay_before *= a;
    }
    a = down(decay_behind, k);
    b = down(back, k);
    if (lane + k < 32) {
      back = back + decay_behind * b;
      decay_behind *= a;
    }
  }
  all[0] = from(decay_before, 31);
  all[1] = from(ahead, 31);
  all[2] = from(back, 0);
  float a = up(decay_before, 1), b = up(ahead, 1);
  decay_before = lane ? a : 1.f;
  ahead = lane ? b : 0.f;
  a = down(decay_behind, 1);
  b = down(back, 1);
  decay_behind = lane < 31 ? a : 1.f;
  back = lane < 31 ? b : 0.f;
}

// The parts of a line of all warps as one.
template <int PARTS>
DEVICE void join(const Line* parts, int channel, int tag, float* decay, float* ahead, float* back) {
  float p = parts->decay[channel], f = parts->ahead[channel], q = parts->back[channel];
#pragma unroll
  for (int i = 1; i < PARTS; i++) {
    const Line& next = parts[i * SIDE];
    append(p, f, q, next.decay[channel], next.ahead[channel], next.back[channel]);
  }
  *decay = tagged(p, tag);
  *ahead = tagged(f, tag);
  *back = tagged(q, tag);
}

// What enters a warp's own part of a line from both sides, of what enters the line.
template <int PARTS>
DEVICE void enter_part(const Line* parts, int part, int lane, float& ahead, float& back) {
#pragma unroll
  for (int i = 0; i < PARTS - 1; i++) {
    if (i < part) ahead = parts[i * SIDE].decay[lane] * ahead + parts[i * SIDE].ahead[lane];
    const int j = PARTS - 1 - i;
    if (j > part) back = parts[j * SIDE].decay[lane] * back + parts[j * SIDE].back[lane];
  }
}

// `memory` has, for each place, lines, states, first states and epoch, and for each job two counters: all zero at first.
KERNEL void scan(MAP map_x, MAP map_delta, const float* __restrict__ bias_, const float* __restrict__ A_,
                 const float* __restrict__ B_, const float* __restrict__ C_, const float* __restrict__ D_,
                 T* __restrict__ y_, float* lines_, float* states_, int* counters, int maps, int h, int w, int sets,
                 int shared, int places, int team_warps) {
  Shared& s = *(Shared*)SHARED_MEMORY;
  const int jobs = maps * GROUPS;
  const int wide = (w + SIDE - 1) / SIDE, high = (h + SIDE - 1) / SIDE, tiles = wide * high;
  const int place = program_index() / tiles;
  if (thread_index() == 0) {
    for (int i = 0; i < WARPS; i++) {
      make_gate(&s.for_delta[i]);
      make_gate(&s.for_x[i]);
    }
    s.tile = program_index() - place * tiles;
    s.down = s.tile / wide;
    s.across = s.tile % wide;
  }
  sync_program();
  float* const lines = lines_ + (long long)place * KINDS * tiles * LINE_VALUES;  // kind, tile, value, channel, position
  float* const states = states_ + (long long)place * KINDS * tiles * STATE_VALUES;
  float* const starts = states_ + (long long)places * KINDS * tiles * STATE_VALUES + place * 2 * LANES;
  int* const epochs = counters + jobs * 2 + place;
  const int epoch = peek(epochs);

  const auto load = [&](T(*to)[ROWS * COLUMNS][LANES], const Map& map, Gate* gates, int job) {
    const int t = thread_now(), warp = t >> 5;
    if (t & 31) return;
    load_box(to[warp], sizeof(to[0]), map, job % GROUPS * LANES, s.across * SIDE + warp % ACROSS * COLUMNS,
             s.down * SIDE + warp / ACROSS * ROWS, job / GROUPS, &gates[warp]);
  };
  const auto load_B_and_C = [&](int job, int parity) {
    const int t = thread_now(), lane = t & 31, warp = t >> 5;
    const int row = s.down * SIDE + warp / ACROSS * ROWS + lane / COLUMNS;
    const int column = s.across * SIDE + warp % ACROSS * COLUMNS + lane % COLUMNS;
    const bool inside = row < h && column < w;
    const long long at = inside ? ((long long)(job / GROUPS) * h + row) * w + column : 0;
    copy_later(&s.B[warp][0][0] + lane, B_ + at, inside);
    copy_later(&s.C[parity][warp][0][0] + lane, C_ + at, inside);
  };
  load(s.delta, map_delta, s.for_delta, place);
  load_B_and_C(place, 0);
  load(s.x, map_x, s.for_x, place);

  int parity = 0;
  for (int job = place; job < jobs; job += places, parity ^= 1) {
    const int tag = (epoch ^ parity ^ 1) & 1;
    const bool more = job + places < jobs;
    float a[ROWS][COLUMNS], b[ROWS][COLUMNS];  // what tokens leave of a state, and what they add to it
    {
      const int t = thread_now(), lane = t & 31, warp = t >> 5, down_ = warp / ACROSS, across = warp % ACROSS;
      const int top = s.down * SIDE + down_ * ROWS, left = s.across * SIDE + across * COLUMNS;
      const int set = min(job / GROUPS / shared, sets - 1);
      const int parameter = set * CHANNELS + known(job % GROUPS * LANES + lane);
#ifdef SOFTPLUS
      const float bias = bias_[parameter];
#else
      const float bias = 0.f;
#endif
      const float rate = A_[parameter] * LOG2E;
      const bool whole = top + ROWS <= h && left + COLUMNS <= w;
      wait_for_gate(&s.for_delta[warp], parity);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
          b[r][c] = step_size(number(s.delta[warp][r * COLUMNS + c][lane]), bias);
          a[r][c] = exp2_(b[r][c] * rate);
        }
        if (!whole) {
#pragma unroll
          for (int c = 0; c < COLUMNS; c++) {
            const bool inside = top + r < h && left + c < w;
            a[r][c] = inside ? a[r][c] : 1.f;
            b[r][c] = inside ? b[r][c] : 0.f;
          }
        }
      }
      wait_for_copies();
      wait_for_gate(&s.for_x[warp], parity);
      sync_warp();
#pragma unroll
      for (int last = 0; last < 2; last++) {
        const int row = (last ? h - 1 : 0) - top, column = (last ? w - 1 : 0) - left;
        if (row >= 0 && row < ROWS && column >= 0 && column < COLUMNS) {
          const int token = row * COLUMNS + column;
          const float delta = step_size(number(s.delta[warp][token][lane]), bias);
          const float x = number(s.x[warp][token][lane]);
          post(starts + last * LANES + lane,
               tagged(fixed_point(x, delta, s.B[warp][row][column], -A_[parameter]), tag));
        }
      }
      sync_warp();
      if (more) load(s.delta, map_delta, s.for_delta, job + places);
      sync_program();  // all have read the job before's parts of lines
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        const float4 B = *(const float4*)s.B[warp][r];
        b[r][0] *= number(s.x[warp][r * COLUMNS][lane]) * B.x;
        b[r][1] *= number(s.x[warp][r * COLUMNS + 1][lane]) * B.y;
        b[r][2] *= number(s.x[warp][r * COLUMNS + 2][lane]) * B.z;
        b[r][3] *= number(s.x[warp][r * COLUMNS + 3][lane]) * B.w;
        float decay = 1.f, ahead = 0.f, back = 0.f;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) append(decay, ahead, back, a[r][c], b[r][c], b[r][c]);
        put(s.rows[across][down_ * ROWS + r], lane, decay, ahead, back);
      }
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) {
        float decay = 1.f, ahead = 0.f, back = 0.f;
#pragma unroll
        for (int r = 0; r < ROWS; r++) append(decay, ahead, back, a[r][c], b[r][c], b[r][c]);
        put(s.columns[down_][across * COLUMNS + c], lane, decay, ahead, back);
      }
      sync_warp();
      if (more) load_B_and_C(job + places, parity ^ 1);
      sync_program();
    }

    int* const posted = counters + job * 2;  // by how many programs: a hint; and how many have their states
    const int t = thread_now(), lane = t & 31, warp = t >> 5;
    const int kind = warp / 4, channel = warp % 4 * 8 + lane / 4, at = lane % 4 * 4;  // of four lines of this program
    {
      float decay[4], ahead[4], back[4];
#pragma unroll
      for (int k = 0; k < 4; k++) {
        if (kind == 0) join<ACROSS>(&s.rows[0][at + k], channel, tag, &decay[k], &ahead[k], &back[k]);
        else join<DOWN>(&s.columns[0][at + k], channel, tag, &decay[k], &ahead[k], &back[k]);
      }
      float* to = lines + (kind * tiles + s.tile) * LINE_VALUES + channel * SIDE + at;
      post4(to, make_float4(decay[0], decay[1], decay[2], decay[3]));
      post4(to + LANES * SIDE, make_float4(ahead[0], ahead[1], ahead[2], ahead[3]));
      post4(to + 2 * LANES * SIDE, make_float4(back[0], back[1], back[2], back[3]));
    }
    sync_program();
    if (t == 0) count(posted);

    // A team of warps chains all lines of a kind of one channel, a thread some of those at one position.
    const int teams = WARPS / team_warps, team = warp / team_warps, member = t - team * team_warps * 32;
    for (int task = s.tile * teams + team; task < TASKS; task += tiles * teams) {
      const int of_kind = task / LANES, beside = of_kind ? high : wide, positions = of_kind ? w : h;
      const int sharers = max(1, team_warps * 32 / positions), length = (beside + sharers - 1) / sharers;
      const int position = member / sharers, first = member % sharers * length;
      const int n = position < positions ? min(length, beside - first) : 0;
      const int tile = of_kind ? first * wide + position / SIDE : position / SIDE * wide + first;
      const int step = of_kind ? wide : 1, offset = task % LANES * SIDE + position % SIDE;
      if (member == 0)
        while (peek(posted) < tiles) nap();
      sync_team(team, team_warps);
      float decays[LINES], aheads[LINES], backs[LINES], ahead, back;
      bool come;
      do {
        const float* line = lines + (of_kind * tiles + tile) * LINE_VALUES + offset;
#pragma unroll
        for (int i = 0; i < LINES; i++) {
          decays[i] = 1.f;
          aheads[i] = backs[i] = 0.f;
          if (i < n) {
            decays[i] = peek(line);
            aheads[i] = peek(line + LANES * SIDE);
            backs[i] = peek(line + 2 * LANES * SIDE);
          }
          line += step * LINE_VALUES;
        }
        ahead = peek(starts + task % LANES);
        back = peek(starts + LANES + task % LANES);
        come = is_tagged(ahead, tag) & is_tagged(back, tag);
#pragma unroll
        for (int i = 0; i < LINES; i++)
          if (i < n) come &= is_tagged(decays[i], tag) & is_tagged(aheads[i], tag) & is_tagged(backs[i], tag);
        if (!come) nap();
      } while (!come);
      float decay = 1.f, own_ahead = 0.f, own_back = 0.f, all[3];
#pragma unroll
      for (int i = 0; i < LINES; i++) append(decay, own_ahead, own_back, decays[i], aheads[i], backs[i]);
      float decay_behind = decay;
      chain_lanes(decay, own_ahead, decay_behind, own_back, all);
      if (team_warps > 1) {
        if (lane < 3) s.of_warps[lane][warp] = lane == 0 ? all[0] : lane == 1 ? all[1] : all[2];
        sync_team(team, team_warps);
#pragma unroll
        for (int i = 0; i < WARPS; i++) {
          if (i >= team * team_warps && i < warp) ahead = s.of_warps[0][i] * ahead + s.of_warps[1][i];
          const int j = WARPS - 1 - i;
          if (j < (team + 1) * team_warps && j > warp) back = s.of_warps[0][j] * back + s.of_warps[2][j];
        }
      }
      ahead = decay * ahead + own_ahead;
      back = decay_behind * back + own_back;
#pragma unroll
      for (int i = 0; i < LINES; i++) {
        const int j = LINES - 1 - i;
        float entering = ahead;
        ahead = decays[i] * ahead + aheads[i];
        aheads[i] = entering;
        entering = back;
        back = decays[j] * back + backs[j];
        backs[j] = entering;
      }
      float* state = states + (of_kind * tiles + tile) * STATE_VALUES + offset;
#pragma unroll
      for (int i = 0; i < LINES; i++) {
        if (i < n) {
          post(state, tagged(aheads[i], tag));
          post(state + LANES * SIDE, tagged(backs[i], tag));
        }
        state += step * STATE_VALUES;
      }
    }

    {
      const float* state = states + (kind * tiles + s.tile) * STATE_VALUES + channel * SIDE + at;
      const int inside = (kind ? w - s.across * SIDE : h - s.down * SIDE) - at;
      float4 ahead, back;
      bool come;
      do {
        ahead = peek4(state);
        back = peek4(state + LANES * SIDE);
        come = true;
        if (inside > 0) come &= is_tagged(ahead.x, tag) & is_tagged(back.x, tag);
        if (inside > 1) come &= is_tagged(ahead.y, tag) & is_tagged(back.y, tag);
        if (inside > 2) come &= is_tagged(ahead.z, tag) & is_tagged(back.z, tag);
        if (inside > 3) come &= is_tagged(ahead.w, tag) & is_tagged(back.w, tag);
        if (!come) nap();
      } while (!come);
      s.entering[kind][0][at][channel] = ahead.x;
      s.entering[kind][0][at + 1][channel] = ahead.y;
      s.entering[kind][0][at + 2][channel] = ahead.z;
      s.entering[kind][0][at + 3][channel] = ahead.w;
      s.entering[kind][1][at][channel] = back.x;
      s.entering[kind][1][at + 1][channel] = back.y;
      s.entering[kind][1][at + 2][channel] = back.z;
      s.entering[kind][1][at + 3][channel] = back.w;
    }
    sync_program();
    if (t == 0 && count(posted + 1) == tiles - 1) {  // the last one leaves all as the next launch needs it
      posted[0] = posted[1] = 0;
      if (!more) *epochs = epoch + parity + 1;
    }
    {
      const int t = thread_now(), lane = t & 31, warp = t >> 5, down_ = warp / ACROSS, across = warp % ACROSS;
      const int top = s.down * SIDE + down_ * ROWS, left = s.across * SIDE + across * COLUMNS;
      // The channel is not kept from here to where results are stored: registers are short.
      const float skip = D_[min(job / GROUPS / shared, sets - 1) * CHANNELS + known(job % GROUPS * LANES + lane)];
      float falling[COLUMNS], rising[COLUMNS], y[ROWS][COLUMNS];
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) {
        const int line = across * COLUMNS + c;
        falling[c] = s.entering[1][0][line][lane];
        rising[c] = s.entering[1][1][line][lane];
        enter_part<DOWN>(&s.columns[0][line], down_, lane, falling[c], rising[c]);
      }
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        const int line = down_ * ROWS + r;
        float ahead = s.entering[0][0][line][lane], back = s.entering[0][1][line][lane];
        enter_part<ACROSS>(&s.rows[0][line], across, lane, ahead, back);
        const float4 four = *(const float4*)s.C[parity][warp][r];
        const float C[COLUMNS] = {four.x, four.y, four.z, four.w};
        float sum[COLUMNS];
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
          ahead = a[r][c] * ahead + b[r][c];
          falling[c] = a[r][c] * falling[c] + b[r][c];
          sum[c] = ahead + falling[c];
        }
#pragma unroll
        for (int c = COLUMNS - 1; c >= 0; c--) {
          back = a[r][c] * back + b[r][c];
          y[r][c] = C[c] * (sum[c] + back) + skip * number(s.x[warp][r * COLUMNS + c][lane]);
        }
      }
      sync_warp();
      if (more) load(s.x, map_x, s.for_x, job + places);
      T* const to = y_ + (((long long)(job / GROUPS) * h + top) * w + left) * CHANNELS + job % GROUPS * LANES + lane;
      const bool whole = top + ROWS <= h && left + COLUMNS <= w;
      const auto finish = [&](bool all) {
#pragma unroll
        for (int r = ROWS - 1; r >= 0; r--) {
          const float4 four = *(const float4*)s.C[parity][warp][r];
          const float C[COLUMNS] = {four.x, four.y, four.z, four.w};
          T* const row = to + r * w * CHANNELS;
#pragma unroll
          for (int c = 0; c < COLUMNS; c++) {
            rising[c] = a[r][c] * rising[c] + b[r][c];
            if (all || (top + r < h && left + c < w)) store(row + c * CHANNELS, y[r][c] + C[c] * rising[c]);
          }
        }
      };
      if (CHANNELS % LANES && job % GROUPS * LANES + lane >= CHANNELS) continue;
      if (whole) finish(true);
      else finish(false);
    }
  }
}
#ifndef EMULATED
extern "C" __constant__ int shared_bytes = sizeof(Shared);
#endif
