// Weighted sums of maps: a constant for every pixel, plus each map times a matrix on its channels or one factor per
// channel. Matrices are block-diagonal.

#include "lanes.h"

namespace {

constexpr Int PART = 256;   // pixels that one task of a thread computes
constexpr int PIXELS = 8;   // pixels at a time, which share the loaded values of the matrices

template <class T>
struct Terms {
  const T* const* maps;
  const T* const* factors;  // of each map: (width, channels), or (channels) if the width is 0
  const Int* widths;        // the channels of each map that is multiplied by a matrix; 0 for factors
  Int count;
  const T* constant;  // (channels)
  Int blocks;         // the number of blocks of the matrices
};

// Compute P pixels.
template <class T, int L, int P>
void sum_pixels(const Terms<T>& terms, T* out, Int pixel, Int channels) {
  for (Int c = 0; c < channels; c += L) {
    typename Lanes<T, L>::type sum[P];
    for (int p = 0; p < P; p++) sum[p] = lanes<T, L>(terms.constant + c);
    for (Int k = 0; k < terms.count; k++) {
      const Int width = terms.widths[k];
      const T *x = terms.maps[k] + pixel * (width ? width : channels), *factor = terms.factors[k] + c;
      // only the rows of the blocks that channels c to c + L lie in
      const Int block_rows = width / terms.blocks, block_columns = channels / terms.blocks;
      const Int first = c / block_columns * block_rows;
      const Int end = (c + L + block_columns - 1) / block_columns * block_rows;
      for (Int a = first; a < end; a++) {
        const auto row = lanes<T, L>(factor + a * channels);
        for (int p = 0; p < P; p++) sum[p] += x[p * width + a] * row;
      }
      if (!width) {
        const auto factors = lanes<T, L>(factor);
        for (int p = 0; p < P; p++) sum[p] += lanes<T, L>(x + p * channels + c) * factors;
      }
    }
    for (int p = 0; p < P; p++) lanes<T, L>(out + (pixel + p) * channels + c) = sum[p];
  }
}

template <class T, int L>
void weighted_sum(const Terms<T>& terms, T* out, Int pixels, Int channels, int threads) {
#pragma omp parallel for num_threads(threads)
  for (Int part = 0; part < (pixels + PART - 1) / PART; part++) {
    Int pixel = part * PART;
    const Int end = std::min(pixels, pixel + PART);
    for (; pixel + PIXELS <= end; pixel += PIXELS) sum_pixels<T, L, PIXELS>(terms, out, pixel, channels);
    for (; pixel < end; pixel++) sum_pixels<T, L, 1>(terms, out, pixel, channels);
  }
}

}  // namespace

#define EXPORT(T)                                                                                                      \
  extern "C" void weighted_sum_##T(const T* const* maps, const T* const* factors, const Int* widths, Int count,        \
                                   const T* constant, Int blocks, T* out, Int pixels, Int channels, int threads) {     \
    constexpr int L = VECTOR / sizeof(T);                                                                              \
    const Terms<T> terms{maps, factors, widths, count, constant, blocks};                                              \
    (channels % L ? weighted_sum<T, L / 2> : weighted_sum<T, L>)(terms, out, pixels, channels, threads);               \
  }

EXPORT(float)
EXPORT(double)
