// Sums over the pixels of maps: of products of channels with each other, and channel by channel.

#include "lanes.h"

namespace {

constexpr Int PART = 1024;  // pixels; the caller makes room for as many parts

Int parts_of(Int pixels) { return (pixels + PART - 1) / PART; }

// Of some pixels: the sums of x y' for A channels of x and L of y, and those of y below.
template <class T, int A, int L>
void moment(const T* x, const T* y, double* out, Int pixels, Int of_x, Int of_y, double* total) {
  typename Lanes<T, L>::type sum[A + 1] = {};
  for (Int p = 0; p < pixels; p++) {
    const auto by = lanes<T, L>(y + p * of_y);
    for (int a = 0; a < A; a++) sum[a] += x[p * of_x + a] * by;
    sum[A] += by;
  }
  for (int c = 0; c < L; c++) {
    for (int a = 0; a < A; a++) out[a * of_y + c] = sum[a][c];
    total[c] = sum[A][c];
  }
}

// Of each part of the pixels, for each of K pairs of maps: (of_x + 1, of_y), the last row that of the sums of y. What lies
// outside the `blocks` on the diagonal may be left as it is.
template <class T, int A, int L>
void moments(const T* const* xs, const T* const* ys, Int count, Int blocks, double* out, Int pixels, Int of_x, Int of_y,
             int threads) {
  const Int high = of_x / blocks, wide = of_y / blocks;  // a block's
#pragma omp parallel for num_threads(threads)
  for (Int part = 0; part < parts_of(pixels); part++) {
    const Int start = part * PART, length = std::min(PART, pixels - start);
    for (Int k = 0; k < count; k++) {
      double* to = out + (part * count + k) * (of_x + 1) * of_y;
      for (Int c = 0; c < of_y; c += L)
        for (Int a = c / wide * high / A * A; a < (c + L + wide - 1) / wide * high; a += A)
          moment<T, A, L>(xs[k] + start * of_x + a, ys[k] + start * of_y + c, to + a * of_y + c, length, of_x, of_y,
                          to + of_x * of_y + c);
    }
  }
}

// Of each part of the pixels: the sums of x, and below those of x times each of K maps: (1 + K, C).
template <class T, int L>
void dots(const T* x, const T* const* ys, Int count, double* out, Int pixels, Int channels, int threads) {
#pragma omp parallel for num_threads(threads)
  for (Int part = 0; part < parts_of(pixels); part++)
    for (Int block = 0; block < channels; block += L) {
      const Int start = part * PART * channels + block, end = std::min(pixels, (part + 1) * PART) * channels;
      double* to = out + part * (count + 1) * channels + block;
      for (Int k = -1; k < count; k++, to += channels) {
        typename Lanes<T, L>::type sum = {};
        if (k < 0)
          for (Int i = start; i < end; i += channels) sum += lanes<T, L>(x + i);
        else
          for (Int i = start; i < end; i += channels) sum += lanes<T, L>(x + i) * lanes<T, L>(ys[k] + i);
        for (int c = 0; c < L; c++) to[c] = sum[c];
      }
    }
}

}  // namespace

#define EXPORT(T)                                                                                                      \
  extern "C" void moments_##T(const T* const* xs, const T* const* ys, Int count, Int blocks, double* out, Int pixels, \
                              Int of_x, Int of_y, int threads) {                                                       \
    constexpr int L = VECTOR / sizeof(T), A = 8;                                                                       \
    (of_y % L ? moments<T, A, L / 2> : moments<T, A, L>)(xs, ys, count, blocks, out, pixels, of_x, of_y, threads);     \
  }                                                                                                                    \
  extern "C" void dots_##T(const T* x, const T* const* ys, Int count, double* out, Int pixels, Int channels,          \
                           int threads) {                                                                              \
    constexpr int L = VECTOR / sizeof(T);                                                                              \
    (channels % L ? dots<T, L / 2> : dots<T, L>)(x, ys, count, out, pixels, channels, threads);                        \
  }

EXPORT(float)
EXPORT(double)
