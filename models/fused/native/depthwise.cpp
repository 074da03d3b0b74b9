// z = k * relu(x), a depthwise convolution with stride and dilation, and its gradients with respect to x and k.
//
// A task is a strip: a few rows of V channels of one image, which fit into the cache. A strip is copied once, with zeros
// around it, so that no inner loop has to check for the border of the map. K is the side of the kernel.

#include <vector>

#include "lanes.h"

namespace {

constexpr Int STRIP = 8;  // rows of a strip; the caller allocates one sum for each strip

// The size of a map, which is dense in memory.
struct Size {
  Int rows, columns, channels;
};

// The size of the output of a convolution.
Size strided(Size size, Int stride) {
  return {(size.rows + stride - 1) / stride, (size.columns + stride - 1) / stride, size.channels};
}

// Copy rows of V channels of one image, from row `first` on, with `margin` zero columns at both ends. Rows outside of the
// map are zero. The map's rows and columns lie `spacing` apart, with zeros between. RELU: copy relu(x).
template <class T, int V, bool RELU>
void copy_padded(T* __restrict to, const T* from, Size size, Int first, Int rows, Int width, Int margin, Int spacing) {
  std::fill(to, to + rows * width * V, T(0));
  for (Int r = 0; r < rows; r++) {
    const Int f = first + r;
    if (f < 0 || f % spacing || f / spacing >= size.rows) continue;
    const T* in = from + f / spacing * size.columns * size.channels;
    T* __restrict out = to + (r * width + margin) * V;
    for (Int t = 0; t < size.columns; t++)
      for (int c = 0; c < V; c++) {
        const T value = in[t * size.channels + c];
        out[t * spacing * V + c] = RELU && value <= 0 ? T(0) : value;
      }
  }
}

// Convolve a padded strip at PIXELS pixels of a row, which share the loaded kernel. MASKED: multiply by the derivative of
// relu(x), which is zero where x <= 0.
template <class T, int V, int K, int PIXELS, bool MASKED>
void convolve_pixels(const T* in, const T* x, const T* k, T* __restrict out, Int channels, Int width, Int stride,
                     Int dilation) {
  T sum[PIXELS][V] = {};
  for (int i = 0; i < K; i++)
    for (int j = 0; j < K; j++)
      for (int p = 0; p < PIXELS; p++)
        for (int c = 0; c < V; c++)
          sum[p][c] += k[(i * K + j) * V + c] * in[(i * dilation * width + p * stride + j * dilation) * V + c];
  for (int p = 0; p < PIXELS; p++)
    for (int c = 0; c < V; c++) out[p * channels + c] = MASKED && x[p * channels + c] <= 0 ? T(0) : sum[p][c];
}

// Convolve `rows` rows of a padded strip.
template <class T, int V, int K, bool MASKED>
void convolve(const T* in, const T* x, const T* k, T* out, Size size, Int rows, Int width, Int stride, Int dilation) {
  constexpr int PIXELS = 4;
  const Int C = size.channels;
  for (Int r = 0; r < rows; r++) {
    const T* from = in + r * stride * width * V;
    const T* x_row = x + r * size.columns * C;
    T* out_row = out + r * size.columns * C;
    Int t = 0;
    for (; t + PIXELS <= size.columns; t += PIXELS)
      convolve_pixels<T, V, K, PIXELS, MASKED>(from + t * stride * V, x_row + t * C, k, out_row + t * C, C, width, stride,
                                               dilation);
    for (; t < size.columns; t++)
      convolve_pixels<T, V, K, 1, MASKED>(from + t * stride * V, x_row + t * C, k, out_row + t * C, C, width, stride,
                                          dilation);
  }
}

// Add the gradient with respect to the kernel to `out` (K, K, V): for each tap, the sum over the pixels of g times the
// value of relu(x) that the tap multiplied.
template <class T, int V, int K>
void kernel_gradient(const T* g, const T* x, double* __restrict out, Size size, Int rows, Int width, Int stride,
                     Int dilation) {
  for (Int r = 0; r < rows; r++)
    for (int i = 0; i < K; i++) {
      T sum[K][V] = {};
      const T* tap_row = x + (r * stride + i * dilation) * width * V;
      for (Int t = 0; t < size.columns; t++)
        for (int j = 0; j < K; j++)
          for (int c = 0; c < V; c++)
            sum[j][c] += g[(r * size.columns + t) * size.channels + c] * tap_row[(t * stride + j * dilation) * V + c];
      for (int j = 0; j < K; j++)
        for (int c = 0; c < V; c++) out[(i * K + j) * V + c] += sum[j][c];
    }
}

// Copy the kernels of V channels, (V, K, K), to (K, K, V). MIRRORED: in reverse order.
template <class T, int V, int K, bool MIRRORED>
void copy_kernel(T* to, const T* k) {
  for (int c = 0; c < V; c++)
    for (int tap = 0; tap < K * K; tap++) to[(MIRRORED ? K * K - 1 - tap : tap) * V + c] = k[c * K * K + tap];
}

// z = k * relu(x).
template <class T, int V, int K>
void forward(const T* x, const T* k, T* z, Int images, Size size, Int stride, Int dilation, int threads) {
  const Size size_z = strided(size, stride);
  const Int margin = K / 2 * dilation, width = size.columns + 2 * margin, C = size.channels;
  const Int blocks = C / V, strips = (size_z.rows + STRIP - 1) / STRIP;
#pragma omp parallel num_threads(threads)
  {
    std::vector<T> padded((STRIP * stride + 2 * margin) * width * V);
    T kernel[K * K * V];
#pragma omp for
    for (Int task = 0; task < images * strips * blocks; task++) {
      const Int block = task % blocks * V, first = task / blocks % strips * STRIP, image = task / blocks / strips;
      const Int rows = std::min(STRIP, size_z.rows - first);
      copy_kernel<T, V, K, false>(kernel, k + block * K * K);
      copy_padded<T, V, true>(padded.data(), x + image * size.rows * size.columns * C + block, size,
                              first * stride - margin, (rows - 1) * stride + 1 + 2 * margin, width, margin, 1);
      T* out = z + (image * size_z.rows + first) * size_z.columns * C + block;
      convolve<T, V, K, false>(padded.data(), out, kernel, out, size_z, rows, width, stride, dilation);
    }
  }
}

// d_x is the convolution of g, with zeros where the stride skipped, with the mirrored kernel. d_k holds one sum for each
// strip. Either output may be null.
template <class T, int V, int K>
void gradients(const T* g, const T* x, const T* k, T* d_x, double* d_k, Int images, Size size, Int stride, Int dilation,
               int threads) {
  const Size size_g = strided(size, stride);
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
      const T* g_image = g + image * size_g.rows * size_g.columns * C + block;
      const T* x_image = x + image * size.rows * size.columns * C + block;
      if (d_x) {
        copy_kernel<T, V, K, true>(kernel, k + block * K * K);
        copy_padded<T, V, false>(padded.data(), g_image, size_g, first - margin, rows + 2 * margin, width, margin, stride);
        const Int start = first * size.columns * C;
        T* out = d_x + image * size.rows * size.columns * C + block + start;
        convolve<T, V, K, true>(padded.data(), x_image + start, kernel, out, size, rows, width, 1, dilation);
      }
      if (d_k) {
        // STRIP is even: with stride 2, the kernel was centered on the first row of every strip
        copy_padded<T, V, true>(padded.data(), x_image, size, first - margin, rows + 2 * margin, width, margin, 1);
        kernel_gradient<T, V, K>(g_image + first / stride * size_g.columns * C, padded.data(), d_k + task * K * K * V,
                                 size_g, (rows + stride - 1) / stride, width, stride, dilation);
      }
    }
  }
}

}  // namespace

// The work for kernels of side K, with as many channels at a time as fill vectors and divide all.
#define WORK(NAME, T, K) (channels % 16 == 0 ? NAME<T, 16, K> : channels % 8 == 0 ? NAME<T, 8, K> : NAME<T, 12, K>)

#define EXPORT(T)                                                                                                      \
  extern "C" void depthwise_##T(const T* x, const T* k, T* z, Int images, Int rows, Int columns, Int channels,         \
                                Int side, Int stride, Int dilation, int threads) {                                     \
    const auto work = side == 3 ? WORK(forward, T, 3) : WORK(forward, T, 5);                                           \
    work(x, k, z, images, Size{rows, columns, channels}, stride, dilation, threads);                                   \
  }                                                                                                                    \
  extern "C" void depthwise_gradients_##T(const T* g, const T* x, const T* k, T* d_x, double* d_k, Int images,         \
                                          Int rows, Int columns, Int channels, Int side, Int stride, Int dilation,     \
                                          int threads) {                                                               \
    const auto work = side == 3 ? WORK(gradients, T, 3) : WORK(gradients, T, 5);                                       \
    work(g, x, k, d_x, d_k, images, Size{rows, columns, channels}, stride, dilation, threads);                         \
  }

EXPORT(float)
EXPORT(double)
