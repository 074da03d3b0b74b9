// Weighted sums of maps: a constant, and terms of which each is a map times a matrix on its channels or a factor for each.
// Matrices are block-diagonal, of M blocks.

#include "lanes.h"

namespace {

constexpr Int PART = 256;  // pixels
constexpr int AT_ONCE = 8;  // pixels, which share what is loaded of the matrices

template <class T>
struct Terms {
  const T* const* maps;
  const T* const* factors;  // (width, channels), or (channels) where the width is 0
  const Int* widths;        // channels of the maps that matrices multiply
  Int count;
  const T* constant;
  Int blocks;
};

template <class T, int L, int PIXELS>
void at_pixels(const Terms<T>& terms, T* out, Int pixel, Int channels) {
  for (Int at = 0; at < channels; at += L) {
    typename Lanes<T, L>::type sum[PIXELS];
    for (int p = 0; p < PIXELS; p++) sum[p] = lanes<T, L>(terms.constant + at);
    for (Int k = 0; k < terms.count; k++) {
      const Int width = terms.widths[k];
      const T *x = terms.maps[k] + pixel * (width ? width : channels), *factor = terms.factors[k] + at;
      const Int high = width / terms.blocks, wide = channels / terms.blocks;  // a block's
      for (Int a = at / wide * high; a < (at + L + wide - 1) / wide * high; a++) {
        const auto by = lanes<T, L>(factor + a * channels);
        for (int p = 0; p < PIXELS; p++) sum[p] += x[p * width + a] * by;
      }
      if (!width) {
        const auto by = lanes<T, L>(factor);
        for (int p = 0; p < PIXELS; p++) sum[p] += lanes<T, L>(x + p * channels + at) * by;
      }
    }
    for (int p = 0; p < PIXELS; p++) lanes<T, L>(out + (pixel + p) * channels + at) = sum[p];
  }
}

template <class T, int L>
void affine(const Terms<T>& terms, T* out, Int pixels, Int channels, int threads) {
#pragma omp parallel for num_threads(threads)
  for (Int part = 0; part < (pixels + PART - 1) / PART; part++) {
    Int pixel = part * PART;
    const Int end = std::min(pixels, pixel + PART);
    for (; pixel + AT_ONCE <= end; pixel += AT_ONCE) at_pixels<T, L, AT_ONCE>(terms, out, pixel, channels);
    for (; pixel < end; pixel++) at_pixels<T, L, 1>(terms, out, pixel, channels);
  }
}

}  // namespace

#define EXPORT(T)                                                                                                      \
  extern "C" void affine_##T(const T* const* maps, const T* const* factors, const Int* widths, Int count,             \
                             const T* constant, Int blocks, T* out, Int pixels, Int channels, int threads) {           \
    constexpr int L = VECTOR / sizeof(T);                                                                              \
    const Terms<T> terms{maps, factors, widths, count, constant, blocks};                                              \
    (channels % L ? affine<T, L / 2> : affine<T, L>)(terms, out, pixels, channels, threads);                           \
  }

EXPORT(float)
EXPORT(double)
