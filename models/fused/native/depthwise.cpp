// z = k * relu(x), a depthwise convolution of any stride and dilation, and its gradients by x and by k.
//
// Work is done in strips of a few rows of V channels, which stay in the cache: each is copied once, with zeros around
// it, so that no loop asks where the map ends.

#include <vector>

#include "lanes.h"

namespace {

constexpr Int STRIP = 8;  // rows; the caller makes room for as many strips

// A map's size, its row and image in memory being dense.
struct Size {
  Int rows, columns, channels;
};

Size strided(Size size, Int stride) {
  return {(size.rows + stride - 1) / stride, (size.columns + stride - 1) / stride, size.channels};
}

// Rows of V channels of one image from row `first` on, with `margin` zero columns at both ends, the rows and columns of
// the map `spread` apart with zeros between; what lies outside the map is zero.
template <class T, int V, bool RECTIFIED>
void copy_padded(T* __restrict to, const T* from, Size size, Int first, Int rows, Int width, Int margin, Int spread) {
  std::fill(to, to + rows * width * V, T(0));
  for (Int r = 0; r < rows; r++) {
    const Int f = first + r;
    if (f < 0 || f % spread || f / spread >= size.rows) continue;
    const T* in = from + f / spread * size.columns * size.channels;
    T* __restrict out = to + (r * width + margin) * V;
    for (Int t = 0; t < size.columns; t++)
      for (int c = 0; c < V; c++) {
        const T value = in[t * size.channels + c];
        out[t * spread * V + c] = RECTIFIED && value <= 0 ? T(0) : value;
      }
  }
}

// A convolution of stride 1 or 2 of a padded strip, at some pixels of a row; MASKED: zero where x is not positive. More
// than one pixel at a time share what they load of the kernel.
template <class T, int V, int K, int PIXELS, bool MASKED>
void at_pixels(const T* in, const T* x, const T* k, T* __restrict out, Int channels, Int width, Int stride, Int dilation) {
  T sum[PIXELS][V] = {};
  for (int i = 0; i < K; i++)
    for (int j = 0; j < K; j++)
      for (int p = 0; p < PIXELS; p++)
        for (int c = 0; c < V; c++)
          sum[p][c] += k[(i * K + j) * V + c] * in[(i * dilation * width + p * stride + j * dilation) * V + c];
  for (int p = 0; p < PIXELS; p++)
    for (int c = 0; c < V; c++) out[p * channels + c] = MASKED && x[p * channels + c] <= 0 ? T(0) : sum[p][c];
}

template <class T, int V, int K, bool MASKED>
void convolve(const T* in, const T* x, const T* k, T* out, Size size, Int rows, Int width, Int stride, Int dilation) {
  constexpr int AT_ONCE = 4;
  const Int C = size.channels;
  for (Int r = 0; r < rows; r++) {
    const T* from = in + r * stride * width * V;
    const Int row = r * size.columns * C;
    Int t = 0;
    for (; t + AT_ONCE <= size.columns; t += AT_ONCE)
      at_pixels<T, V, K, AT_ONCE, MASKED>(from + t * stride * V, x + row + t * C, k, out + row + t * C, C, width, stride,
                                          dilation);
    for (; t < size.columns; t++)
      at_pixels<T, V, K, 1, MASKED>(from + t * stride * V, x + row + t * C, k, out + row + t * C, C, width, stride, dilation);
  }
}

// By the kernel: each tap's sum over the pixels of g times the x that it saw.
template <class T, int V, int K>
void by_kernel(const T* g, const T* x, double* __restrict out, Size size, Int rows, Int width, Int stride, Int dilation) {
  for (Int r = 0; r < rows; r++)
    for (int i = 0; i < K; i++) {
      T sum[K][V] = {};
      const T* seen = x + (r * stride + i * dilation) * width * V;
      for (Int t = 0; t < size.columns; t++)
        for (int j = 0; j < K; j++)
          for (int c = 0; c < V; c++)
            sum[j][c] += g[(r * size.columns + t) * size.channels + c] * seen[(t * stride + j * dilation) * V + c];
      for (int j = 0; j < K; j++)
        for (int c = 0; c < V; c++) out[(i * K + j) * V + c] += sum[j][c];
    }
}

// The kernels of V channels, as (K, K, V), or mirrored.
template <class T, int V, int K, bool MIRRORED>
void copy_kernel(T* to, const T* k) {
  for (int c = 0; c < V; c++)
    for (int tap = 0; tap < K * K; tap++) to[(MIRRORED ? K * K - 1 - tap : tap) * V + c] = k[c * K * K + tap];
}

template <class T, int V, int K>
void forward(const T* x, const T* k, T* z, Int images, Size size, Int stride, Int dilation, int threads) {
  const Size of_z = strided(size, stride);
  const Int margin = K / 2 * dilation, width = size.columns + 2 * margin, C = size.channels;
  const Int blocks = C / V, strips = (of_z.rows + STRIP - 1) / STRIP;
#pragma omp parallel num_threads(threads)
  {
    std::vector<T> padded((STRIP * stride + 2 * margin) * width * V);
    T kernel[K * K * V];
#pragma omp for
    for (Int task = 0; task < images * strips * blocks; task++) {
      const Int block = task % blocks * V, first = task / blocks % strips * STRIP, image = task / blocks / strips;
      const Int rows = std::min(STRIP, of_z.rows - first);
      copy_kernel<T, V, K, false>(kernel, k + block * K * K);
      copy_padded<T, V, true>(padded.data(), x + image * size.rows * size.columns * C + block, size,
                              first * stride - margin, (rows - 1) * stride + 1 + 2 * margin, width, margin, 1);
      T* out = z + (image * of_z.rows + first) * of_z.columns * C + block;
      convolve<T, V, K, false>(padded.data(), out, kernel, out, of_z, rows, width, stride, dilation);
    }
  }
}

// By x: the convolution of g, spread where the stride has skipped, with the mirrored kernel.
template <class T, int V, int K>
void gradients(const T* g, const T* x, const T* k, T* d_x, double* d_k, Int images, Size size, Int stride, Int dilation,
               int threads) {
  const Size of_g = strided(size, stride);
  const Int margin = K / 2 * dilation, width = size.columns + 2 * margin, C = size.channels;
  const Int blocks = C / V, strips = (size.rows + STRIP - 1) / STRIP;
#pragma omp parallel num_threads(threads)
  {
    std::vector<T> padded((STRIP + 2 * margin) * width * V);
    T kernel[K * K * V];
#pragma omp for
    for (Int task = 0; task < images * strips * blocks; task++) {
      const Int block = task % blocks * V, first = task / blocks % strips * STRIP, image = task / blocks / strips;
      const Int rows = std::min(STRIP, size.rows - first);
      const T* g_block = g + image * of_g.rows * of_g.columns * C + block;
      const T* x_block = x + image * size.rows * size.columns * C + block;
      if (d_x) {
        copy_kernel<T, V, K, true>(kernel, k + block * K * K);
        const Int start = first * size.columns * C;
        copy_padded<T, V, false>(padded.data(), g_block, of_g, first - margin, rows + 2 * margin, width, margin, stride);
        convolve<T, V, K, true>(padded.data(), x_block + start, kernel,
                                d_x + image * size.rows * size.columns * C + block + start, size, rows, width, 1, dilation);
      }
      if (d_k) {  // STRIP is even: a strip of x begins with a row that a stride of 2 sees
        copy_padded<T, V, true>(padded.data(), x_block, size, first - margin, rows + 2 * margin, width, margin, 1);
        by_kernel<T, V, K>(g_block + first / stride * of_g.columns * C, padded.data(), d_k + task * K * K * V, of_g,
                           (rows + stride - 1) / stride, width, stride, dilation);
      }
    }
  }
}

}  // namespace

#define EXPORT(T)                                                                                                      \
  extern "C" void depthwise_##T(const T* x, const T* k, T* z, Int images, Int rows, Int columns, Int channels,        \
                                Int side, Int stride, Int dilation, int threads) {                         \
    const auto work = side == 3 ? (channels % 16 == 0 ? forward<T, 16, 3> : forward<T, 8, 3>)                                 \
                                : (channels % 16 == 0 ? forward<T, 16, 5> : forward<T, 8, 5>);                                \
    work(x, k, z, images, Size{rows, columns, channels}, stride, dilation, threads);                                   \
  }                                                                                                                    \
  extern "C" void gradients_##T(const T* g, const T* x, const T* k, T* d_x, double* d_k, Int images, Int rows,        \
                                Int columns, Int channels, Int side, Int stride, Int dilation, int threads) {                                                                         \
    const auto work = side == 3 ? (channels % 16 == 0 ? gradients<T, 16, 3> : gradients<T, 8, 3>)                             \
                                : (channels % 16 == 0 ? gradients<T, 16, 5> : gradients<T, 8, 5>);                            \
    work(g, x, k, d_x, d_k, images, Size{rows, columns, channels}, stride, dilation, threads);                         \
  }

EXPORT(float)
EXPORT(double)
