// The scan of maps of state size 1 in one launch; see `resident_scan.py`.
//
// A job is 32 channels of a map, or, where a map has an odd multiple of 16, of all maps as if they were one. Its tiles
// of 16x16 tokens have a program each, all of which are on the chip at once, so that they may wait for each other;
// several jobs have programs there, in places, and places go from job to job. A thread has 8x4 tokens of a channel in
// registers. First it finds what its parts of rows and columns, called lines, make of the states that enter them. Then
// some programs chain all lines of a kind of a channel, and post the states that enter each program's lines. Last it
// walks again with these states. The next job's values come into shared memory meanwhile.
//
// Programs tell each other values, not that values are there: the last bit of a float is the job's tag, which
// alternates from job to job of a place, and from launch to launch. It costs half a unit in the last place, and saves
// the fences.
//
// Nothing waits for memory but for its latency, and two programs of a processor are for the most part at the same step.
// So what counts is how long a job takes from its values to its results: few instructions, loads that are all on their
// way before the first is looked at, and no register spilled. All registers are in use: see `again` and `thread_now`.
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
#define PACKED (CHANNELS % 32 == 16)  // a job may have channels of two maps
#define OF_MAP (PACKED ? 16 : LANES)  // channels in a row that are of one map
#define MAPS (LANES / OF_MAP)
#define GROUPS ((CHANNELS + LANES - 1) / LANES)  // of a map, unless packed
#define VALUE (LANES * SIDE)  // one for each line of a tile of a kind, by channel and position
#define LINE_VALUES (3 * VALUE)  // decay, ahead, back
#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f
#ifndef EMULATED
#include "hopper.cuh"
#endif

struct Line {  // of a channel: what is added to a state ahead and back, and what is left of it; four lie 8 banks apart
  float2 added[LANES];
  float decay[LANES], unused[2];
};
struct Shared {
  T x[WARPS][MAPS][ROWS * COLUMNS][OF_MAP], delta[WARPS][MAPS][ROWS * COLUMNS][OF_MAP];
  Line rows[ACROSS][SIDE], columns[DOWN][SIDE];  // of each warp; later what enters is where what is added was
  float B[MAPS][WARPS][ROWS][COLUMNS], C[2][MAPS][WARPS][ROWS][COLUMNS];
  float4 of_warps[WARPS];  // that chain: decay, ahead, back
  float A[LANES], bias[LANES], D[2][LANES];
  Gate for_delta[WARPS], for_x[WARPS];
  int tile, down, across;  // of this program
  int shift[KINDS];        // of the number of threads that share a position's lines
};

// A step size over log(2), of a bias over log(2).
DEVICE float step_size(float delta, float bias) {
#ifdef SOFTPLUS  // to 2e-7, with the digits of small results
  const float x = delta * LOG2E + bias, z = exp2_of_minus(x);
  float s = 0.17745204f * LOG2E + z * (-0.10768117f * LOG2E + z * (0.044089238f * LOG2E - z * (0.0085390963f * LOG2E)));
  s = 0.33275478f * LOG2E + z * (-0.2449545f * LOG2E + z * s);
  s = 0.99999981f * LOG2E + z * (-0.49997405f * LOG2E + z * s);
  return fmaxf(x, 0.f) + z * s;
#else
  return delta * LOG2E;
#endif
}

// The state that an order begins with: `recurrence.start_states`.
DEVICE float fixed_point(float x, float delta, float B, float rate) {
  const float decay = fmaxf(delta * rate, 1e-12f);
  const float series = 1.f + decay * (0.5f + decay * (0.083333333f - decay * decay * 0.0013888889f));
  return x * B / rate * (decay < 0.3f ? series : decay / (1.f - exp2_(-decay * LOG2E)));
}

DEVICE float tagged(float v, int tag) { return of_bits((bits(v) & ~1) | tag); }
DEVICE float4 tagged4(const float (&v)[4], int tag) {
  return make_float4(tagged(v[0], tag), tagged(v[1], tag), tagged(v[2], tag), tagged(v[3], tag));
}
DEVICE int untagged(float v, int tag) { return bits(v) ^ tag; }  // the last bit: whether it is another job's

DEVICE int jobs_of(int maps) { return PACKED ? (maps * CHANNELS + LANES - 1) / LANES : maps * GROUPS; }
DEVICE int map_of(int job, int lane) { return PACKED ? (job * LANES + lane) / CHANNELS : job / GROUPS; }
DEVICE int channel_of(int job, int lane) {
  return PACKED ? (job * LANES + lane) % CHANNELS : job % GROUPS * LANES + lane;
}
// Of lanes without a channel or a map, which do as the last one does, with values of zero.
DEVICE int parameter_of(int job, int lane, int shared, int sets) {
  return min(map_of(job, lane) / shared, sets - 1) * CHANNELS + min(channel_of(job, lane), CHANNELS - 1);
}

DEVICE void put(Line& line, int lane, float decay, float ahead, float back) {
  line.decay[lane] = decay;
  line.added[lane] = make_float2(ahead, back);
}

// Appends a line to `decay`, `ahead` and `back`.
DEVICE void append(float& decay, float& ahead, float& back, float a, float b, float c) {
  ahead = a * ahead + b;
  back += decay * c;
  decay *= a;
}

// Of the lines of a warp's first N lanes: those up to each lane's as `before` and `ahead`, those from there on as
// `behind` and `back`.
template <int N>
DEVICE void chain(float& before, float& ahead, float& behind, float& back) {
  const int lane = thread_index() & 31;
#pragma unroll
  for (int k = 1; k < N; k *= 2) {
    float a = up(before, k), b = up(ahead, k);
    if (lane >= k) {
      ahead = before * b + ahead;
      before *= a;
    }
    a = down(behind, k);
    b = down(back, k);
    if (lane + k < 32) {
      back = back + behind * b;
      behind *= a;
    }
  }
}

// Posts four lines of a channel: the parts of all warps as one.
template <int PARTS>
DEVICE void join(const Line* parts, int channel, int tag, float* to) {
  float decay[4], ahead[4], back[4];
#pragma unroll
  for (int i = 0; i < PARTS; i++) {
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const Line& part = parts[i * SIDE + k];
      const float2 added = part.added[channel];
      if (i) {
        append(decay[k], ahead[k], back[k], part.decay[channel], added.x, added.y);
      } else {
        decay[k] = part.decay[channel];
        ahead[k] = added.x;
        back[k] = added.y;
      }
    }
  }
  post4(to, tagged4(decay, tag));
  post4(to + VALUE, tagged4(ahead, tag));
  post4(to + 2 * VALUE, tagged4(back, tag));
}

// What enters the parts of two lines of a channel, of what enters the lines, in place of what the parts add.
template <int PARTS>
DEVICE void enter(Line* parts, int channel, float4 entering) {
  float decay[2][PARTS];
  float2 added[2][PARTS];
#pragma unroll
  for (int i = 0; i < PARTS; i++) {
#pragma unroll
    for (int k = 0; k < 2; k++) {
      decay[k][i] = parts[i * SIDE + k].decay[channel];
      added[k][i] = parts[i * SIDE + k].added[channel];
    }
  }
#pragma unroll
  for (int k = 0; k < 2; k++) {
    float ahead = k ? entering.z : entering.x, back = k ? entering.w : entering.y;
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
      const float own = ahead;
      ahead = decay[k][i] * ahead + added[k][i].x;
      added[k][i].x = own;
    }
#pragma unroll
    for (int i = PARTS - 1; i >= 0; i--) {
      const float own = back;
      back = decay[k][i] * back + added[k][i].y;
      added[k][i].y = own;
    }
  }
#pragma unroll
  for (int i = 0; i < PARTS; i++) {
#pragma unroll
    for (int k = 0; k < 2; k++) parts[i * SIDE + k].added[channel] = added[k][i];
  }
}

// `lines_`, `states_` and `counters` have, for each place, lines, states, first states and epoch, and for each job two
// counters: all zero at first.
KERNEL void scan(MAP map_x, MAP map_delta, const float* __restrict__ bias_, const float* __restrict__ A_,
                 const float* __restrict__ B_, const float* __restrict__ C_, const float* __restrict__ D_,
                 T* __restrict__ y_, float* lines_, float2* states_, int* counters, int maps, int h, int w, int sets,
                 int shared, int places, int team_warps) {
  Shared& s = *(Shared*)SHARED_MEMORY;
  const int jobs = jobs_of(maps);
  const int wide = (w + SIDE - 1) / SIDE, high = (h + SIDE - 1) / SIDE, tiles = wide * high;
  const int place = program_index() / tiles;
  float* const lines = lines_ + place * (KINDS * tiles * LINE_VALUES);  // kind, tile, value, channel, position
  float2* const states = states_ + place * (KINDS * tiles * VALUE + LANES);
  float* const starts = (float*)(states + KINDS * tiles * VALUE);

  const auto load = [&](T(*to)[MAPS][ROWS * COLUMNS][OF_MAP], const Map& map, Gate* gates, int job, int down,
                        int across) {
    const int t = thread_now(), warp = t >> 5;
    if (t & 31) return;
    arrive_before(&gates[warp], sizeof(to[0]));
#pragma unroll
    for (int m = 0; m < MAPS; m++)
      load_box(to[warp][m], sizeof(to[0][0]), map, channel_of(job, m * OF_MAP),
               across * SIDE + warp % ACROSS * COLUMNS, down * SIDE + warp / ACROSS * ROWS, map_of(job, m * OF_MAP),
               &gates[warp]);
  };
  const auto load_B_and_C = [&](int job, int parity, int down, int across) {
    const int t = thread_now(), lane = t & 31, warp = t >> 5;
    const int row = down * SIDE + warp / ACROSS * ROWS + lane / COLUMNS;
    const int column = across * SIDE + warp % ACROSS * COLUMNS + lane % COLUMNS;
#pragma unroll
    for (int m = 0; m < MAPS; m++) {
      const int map = map_of(job, m * OF_MAP);
      const bool inside = row < h && column < w && (!PACKED || map < maps);
      const int at = inside ? (map * h + row) * w + column : 0;
      copy_later(&s.B[m][warp][0][0] + lane, B_ + at, inside);
      copy_later(&s.C[parity][m][warp][0][0] + lane, C_ + at, inside);
    }
    if (warp >= 3) return;
    const int parameter = parameter_of(job, lane, shared, sets);
    copy_later((warp == 0 ? s.A : warp == 1 ? s.bias : s.D[parity]) + lane,
               (warp == 0 ? A_ : warp == 1 ? bias_ : D_) + parameter, true);
  };
  const auto finish_loads = [&]() {  // a barrier has to follow; step sizes are over log(2)
    const int t = thread_now();
    wait_for_copies();
#pragma unroll
    for (int m = 0; m < MAPS; m++) (&s.B[m][0][0][0])[t] *= LN2;
  };
  {  // each warp for itself: the first values are asked for before all else
    const int t = thread_index(), warp = t >> 5, tile = program_index() - place * tiles;
    const int down = tile / wide, across = tile % wide;
    if ((t & 31) == 0) {
      make_gate(&s.for_delta[warp]);
      make_gate(&s.for_x[warp]);
    }
    sync_warp();
    load(s.delta, map_delta, s.for_delta, place, down, across);
    load_B_and_C(place, 0, down, across);
    load(s.x, map_x, s.for_x, place, down, across);
    if (t == 0) {
      s.tile = tile;
      s.down = down;
      s.across = across;
      for (int kind = 0; kind < KINDS; kind++) {
        int shift = 0;
        while ((kind ? wide : high) * SIDE << (shift + 1) <= 32 * team_warps) shift++;
        s.shift[kind] = shift;
      }
    }
    finish_loads();
    sync_program();
  }
  const int epoch = peek(counters + jobs * 2 + place);

  int parity = 0;
  for (int job = place; job < jobs; job += places, parity ^= 1) {
    const int tag = (epoch ^ parity ^ 1) & 1;
    const bool more = job + places < jobs;
    float a[ROWS][COLUMNS], b[ROWS][COLUMNS];  // what tokens leave of a state, and what they add to it
    {
      const int t = thread_now(), lane = t & 31, warp = t >> 5, down_ = warp / ACROSS, across = warp % ACROSS;
      const int top = s.down * SIDE + down_ * ROWS, left = s.across * SIDE + across * COLUMNS;
      const int which = lane / OF_MAP;
      const T* const own_x = &s.x[warp][which][0][lane % OF_MAP];
      const T* const own_delta = &s.delta[warp][which][0][lane % OF_MAP];
      const float bias = s.bias[lane] * LOG2E, rate = s.A[lane];
      const bool whole = top + ROWS <= h && left + COLUMNS <= w;
      wait_for_gate(&s.for_delta[warp], parity);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
          b[r][c] = step_size(number(own_delta[(r * COLUMNS + c) * OF_MAP]), bias);
          a[r][c] = exp2_(b[r][c] * rate);
        }
      }
      if (!whole) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
#pragma unroll
          for (int c = 0; c < COLUMNS; c++) {
            const bool inside = top + r < h && left + c < w;
            a[r][c] = inside ? a[r][c] : 1.f;
            b[r][c] = inside ? b[r][c] : 0.f;
          }
        }
      }
      wait_for_gate(&s.for_x[warp], parity);
#pragma unroll
      for (int last = 0; last < 2; last++) {
        const int row = (last ? h - 1 : 0) - top, column = (last ? w - 1 : 0) - left;
        if ((unsigned)row < ROWS && (unsigned)column < COLUMNS) {
          const int token = row * COLUMNS + column;
          const float delta = step_size(number(own_delta[token * OF_MAP]), bias) * LN2;
          const float x = number(own_x[token * OF_MAP]);
          const float B = s.B[which][warp][row][column] * LOG2E;
          post(starts + last * LANES + lane, tagged(fixed_point(x, delta, B, -rate), tag));
        }
      }
      sync_warp();
      if (more) load(s.delta, map_delta, s.for_delta, job + places, s.down, s.across);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        const float4 B = *(const float4*)s.B[which][warp][r];
        b[r][0] *= number(own_x[r * COLUMNS * OF_MAP]) * B.x;
        b[r][1] *= number(own_x[(r * COLUMNS + 1) * OF_MAP]) * B.y;
        b[r][2] *= number(own_x[(r * COLUMNS + 2) * OF_MAP]) * B.z;
        b[r][3] *= number(own_x[(r * COLUMNS + 3) * OF_MAP]) * B.w;
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
      sync_program();
    }

    int* const posted = counters + job * 2;  // by how many programs: a hint; and how many have their states
    {
      const int t = thread_now(), lane = t & 31, warp = t >> 5;
      const int kind = warp / 4, channel = warp % 4 * 8 + lane / 4, at = lane % 4 * 4;  // of four lines of this program
      float* const to = lines + (kind * tiles + s.tile) * LINE_VALUES + channel * SIDE + at;
      if (kind) join<DOWN>(&s.columns[0][at], channel, tag, to);
      else join<ACROSS>(&s.rows[0][at], channel, tag, to);
    }
    sync_program();
    const int t = thread_now(), lane = t & 31, warp = t >> 5;
    if (t == 0) count(posted);
    if (more) load_B_and_C(job + places, parity ^ 1, s.down, s.across);

    // A team of warps chains all lines of a kind of one channel, a thread some of those at one position.
    const int teams = WARPS / team_warps, team = warp / team_warps, member = t - team * team_warps * 32;
    for (int task = s.tile * teams + team; task < TASKS; task += tiles * teams) {
      const int of_kind = task / LANES, beside = of_kind ? high : wide, shift = s.shift[of_kind];
      const int position = member >> shift, length = (beside + (1 << shift) - 1) >> shift;
      const int first = (member & ((1 << shift) - 1)) * length;
      const int n = position < (of_kind ? wide : high) * SIDE ? min(length, beside - first) : 0;
      const int tile = of_kind ? first * wide + position / SIDE : position / SIDE * wide + first;
      const int step = (of_kind ? wide : 1) * LINE_VALUES;
      const int own = (of_kind * tiles + tile) * LINE_VALUES + task % LANES * SIDE + position % SIDE;
      if (member == 0)
        while (peek(posted) < tiles) nap();
      sync_team(team, team_warps);
      float decays[LINES], aheads[LINES], backs[LINES], ahead, back;
      int missing;
      do {  // those of other places in the order are 0
        ahead = back = tagged(0.f, tag);
        if (warp == team * team_warps) ahead = peek(starts + task % LANES);
        if (warp == (team + 1) * team_warps - 1) back = peek(starts + LANES + task % LANES);
        const float* line = lines + again(own);
#pragma unroll
        for (int i = 0; i < LINES; i++) {
          decays[i] = tagged(1.f, tag);
          aheads[i] = backs[i] = tagged(0.f, tag);
          if (i < n) {
            decays[i] = peek(line);
            aheads[i] = peek(line + VALUE);
            backs[i] = peek(line + 2 * VALUE);
          }
          line += step;
        }
        const int after_all = tag | (bits(backs[LINES - 1]) & maps >> 31);  // the tag, once all loads are on their way
        missing = untagged(ahead, after_all) | untagged(back, after_all);
#pragma unroll
        for (int i = 0; i < LINES; i++) {
          missing |= untagged(decays[i], after_all) | untagged(aheads[i], after_all) | untagged(backs[i], after_all);
          decays[i] = of_bits(bits(decays[i]) & ~1);  // 1 is 1 again
        }
        missing = again(missing) & 1;
        if (missing) nap();
      } while (missing);
      float before = 1.f, own_ahead = 0.f, own_back = 0.f;
#pragma unroll
      for (int i = 0; i < LINES; i++) append(before, own_ahead, own_back, decays[i], aheads[i], backs[i]);
      float behind = before;
      chain<32>(before, own_ahead, behind, own_back);
      if (team_warps > 1) {
        const float all = from(before, 31), all_ahead = from(own_ahead, 31), all_back = from(own_back, 0);
        if (lane == 0) s.of_warps[warp] = make_float4(all, all * ahead + all_ahead, all * back + all_back, 0.f);
        sync_team(team, team_warps);
        float4 of = make_float4(1.f, 0.f, 0.f, 0.f);
        if (lane / team_warps == team) of = s.of_warps[lane];
        float of_before = of.x, of_behind = of.x;
        chain<WARPS>(of_before, of.y, of_behind, of.z);
        of.y = from(of.y, warp - 1);
        of.z = from(of.z, warp + 1);
        if (warp % team_warps > 0) ahead = of.y;
        if (warp % team_warps < team_warps - 1) back = of.z;
      }
      {
        const float a = up(before, 1), b = up(own_ahead, 1), c = down(behind, 1), d = down(own_back, 1);
        if (lane > 0) ahead = a * ahead + b;
        if (lane < 31) back = c * back + d;
      }
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
      const int own_lines = again(n), at = again(own);
      float2* state = states + at - at / LINE_VALUES * (LINE_VALUES - VALUE);
#pragma unroll
      for (int i = 0; i < LINES; i++) {
        if (i < own_lines) post2(state, make_float2(aheads[i], tagged(backs[i], tag)));
        state += (of_kind ? wide : 1) * VALUE;
      }
    }

    {
      const int t = thread_now(), lane = t & 31, warp = t >> 5;
      const int kind = warp / 4, channel = warp % 4 * 8 + lane / 4, at = lane % 4 * 4;
      const float2* state = states + (kind * tiles + s.tile) * VALUE + channel * SIDE + at;
      float4 first, second;  // two lines each: ahead, back
      int missing;
      do {
        first = peek4(state);
        second = peek4(state + 2);
        missing = untagged(first.y, tag) | untagged(first.w, tag) | untagged(second.y, tag) | untagged(second.w, tag);
        missing = again(missing) & 1;
        if (missing) nap();
      } while (missing);
      if (kind) {
        enter<DOWN>(&s.columns[0][at], channel, first);
        enter<DOWN>(&s.columns[0][at + 2], channel, second);
      } else {
        enter<ACROSS>(&s.rows[0][at], channel, first);
        enter<ACROSS>(&s.rows[0][at + 2], channel, second);
      }
    }
    if (more) finish_loads();
    sync_program();
    if (thread_now() == 0 && count(posted + 1) == tiles - 1) {  // the last one leaves all as the next launch needs it
      posted[0] = posted[1] = 0;
      if (!more) counters[jobs * 2 + place] = epoch + parity + 1;
    }
    {
      const int t = thread_now(), lane = t & 31, warp = t >> 5, down_ = warp / ACROSS, across = warp % ACROSS;
      const int top = s.down * SIDE + down_ * ROWS, left = s.across * SIDE + across * COLUMNS;
      const int which = lane / OF_MAP;
      const T* const own_x = &s.x[warp][which][0][lane % OF_MAP];
      const float skip = s.D[parity][lane];
      float falling[COLUMNS], rising[COLUMNS], y[ROWS][COLUMNS];
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) {
        const int line = across * COLUMNS + c;
        const float2 entering = s.columns[down_][line].added[lane];
        falling[c] = entering.x;
        rising[c] = entering.y;
      }
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        const float2 entering = s.rows[across][down_ * ROWS + r].added[lane];
        float ahead = entering.x, back = entering.y;
        const float4 four = *(const float4*)s.C[parity][which][warp][r];
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
          y[r][c] = C[c] * (sum[c] + back) + skip * number(own_x[(r * COLUMNS + c) * OF_MAP]);
        }
      }
      sync_warp();
      if (more) load(s.x, map_x, s.for_x, job + places, s.down, s.across);
      const int map = map_of(job, lane), channel = channel_of(job, lane);
      T* const to = y_ + (((long long)map * h + top) * w + left) * CHANNELS + channel;
      const bool whole = top + ROWS <= h && left + COLUMNS <= w;
      const auto finish = [&](bool all) {
        T* row = to + (ROWS - 1) * w * CHANNELS;
#pragma unroll
        for (int r = ROWS - 1; r >= 0; r--, row -= w * CHANNELS) {
          const float4 four = *(const float4*)s.C[parity][which][warp][r];
          const float C[COLUMNS] = {four.x, four.y, four.z, four.w};
#pragma unroll
          for (int c = 0; c < COLUMNS; c++) {
            rising[c] = a[r][c] * rising[c] + b[r][c];
            if (all || (top + r < h && left + c < w)) store(row + c * CHANNELS, y[r][c] + C[c] * rising[c]);
          }
        }
      };
      if (PACKED ? map >= maps : channel >= CHANNELS) continue;
      if (whole) finish(true);
      else finish(false);
    }
  }
}
#ifndef EMULATED
extern "C" __constant__ int shared_bytes = sizeof(Shared);
#endif
