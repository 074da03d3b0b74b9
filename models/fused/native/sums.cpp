// Sums over the pixels of maps: of products of all pairs of channels, and channel by channel.

#include "lanes.h"

namespace {

constexpr Int PART = 1024;  // pixels in a part; the caller allocates one sum for each part

Int count_parts(Int pixels) { return (pixels + PART - 1) / PART; }

// The sums over some pixels of x y' for A channels of x and L channels of y, and the sums of y (`total`).
template <class T, int A, int L>
void sum_products(const T* x, const T* y, double* out, Int pixels, Int channels_x, Int channels_y, double* total) {
  typename Lanes<T, L>::type sum[A + 1] = {};
  for (Int p = 0; p < pixels; p++) {
    const auto value = lanes<T, L>(y + p * channels_y);
    for (int a = 0; a < A; a++) sum[a] += x[p * channels_x + a] * value;
    sum[A] += value;
  }
  for (int c = 0; c < L; c++) {
    for (int a = 0; a < A; a++) out[a * channels_y + c] = sum[a][c];
    total[c] = sum[A][c];
  }
}

// For each part of the pixels and each of K pairs of maps: x y' in (channels_x, channels_y), then the sums of y in one
// more row. Only the `blocks` on the diagonal of x y' are computed; the caller ignores the rest.
template <class T, int A, int L>
void product_sums(const T* const* xs, const T* const* ys, Int count, Int blocks, double* out, Int pixels,
                  Int channels_x, Int channels_y, int threads) {
  const Int block_rows = channels_x / blocks, block_columns = channels_y / blocks;
#pragma omp parallel for num_threads(threads)
  for (Int part = 0; part < count_parts(pixels); part++) {
    const Int start = part * PART, length = std::min(PART, pixels - start);
    for (Int k = 0; k < count; k++) {
      double* to = out + (part * count + k) * (channels_x + 1) * channels_y;
      for (Int c = 0; c < channels_y; c += L) {
        const Int first = c / block_columns * block_rows / A * A;
        const Int end = (c + L + block_columns - 1) / block_columns * block_rows;
        for (Int a = first; a < end; a += A)
          sum_products<T, A, L>(xs[k] + start * channels_x + a, ys[k] + start * channels_y + c, to + a * channels_y + c,
                                length, channels_x, channels_y, to + channels_x * channels_y + c);
      }
    }
  }
}

// For each part of the pixels: the sums of x, then those of x times each of K maps, (1 + K, C).
template <class T, int L>
void channel_sums(const T* x, const T* const* ys, Int count, double* out, Int pixels, Int channels, int threads) {
#pragma omp parallel for num_threads(threads)
  for (Int part = 0; part < count_parts(pixels); part++)
    for (Int c = 0; c < channels; c += L) {
      const Int start = part * PART * channels + c, end = std::min(pixels, (part + 1) * PART) * channels;
      double* to = out + part * (count + 1) * channels + c;
      for (Int k = -1; k < count; k++, to += channels) {
        typename Lanes<T, L>::type sum = {};
        if (k < 0)
          for (Int i = start; i < end; i += channels) sum += lanes<T, L>(x + i);
        else
          for (Int i = start; i < end; i += channels) sum += lanes<T, L>(x + i) * lanes<T, L>(ys[k] + i);
        for (int i = 0; i < L; i++) to[i] = sum[i];
      }
    }
}

}  // namespace

#define EXPORT(T)                                                                                                      \
  extern "C" void product_sums_##T(const T* const* xs, const T* const* ys, Int count, Int blocks, double* out,         \
                                   Int pixels, Int channels_x, Int channels_y, int threads) {                          \
    constexpr int L = VECTOR / sizeof(T), A = 8;                                                                       \
    (channels_y % L ? product_sums<T, A, L / 2> : product_sums<T, A, L>)(xs, ys, count, blocks, out, pixels,           \
                                                                         channels_x, channels_y, threads);             \
  }                                                                                                                    \
  extern "C" void channel_sums_##T(const T* x, const T* const* ys, Int count, double* out, Int pixels, Int channels,   \
                                   int threads) {                                                                      \
    constexpr int L = VECTOR / sizeof(T);                                                                              \
    (channels % L ? channel_sums<T, L / 2> : channel_sums<T, L>)(x, ys, count, out, pixels, channels, threads);        \
  }

EXPORT(float)
EXPORT(double)
