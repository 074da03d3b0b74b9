// out = BN(y), y = W relu(z): a pointwise convolution and a BatchNorm with affine parameters, and their gradients. relu
// and W are optional.
//
//     r = 1 / sqrt(variance + eps),    out = gamma r (y - mean) + beta
//
// Backward, from the gradient g of out, with s = average(g (y - mean)) over the R pixels:
//
//     d/dgamma = R r s,    d/dbeta = R average(g),    d/dy = gamma r (g - average(g) - r^2 s (y - mean))
//     d/dW = sum(d/dy relu(z)'),    d/dz = W' d/dy where z > 0
//
// In evaluation mode, mean and variance are constants, and d/dy = gamma r g.
//
// The pixels are processed in parts that fit into the cache. A part is processed as one flat array: a row of several
// pixels fills whole vectors whatever the number of channels, if the factors of the channels are repeated for each pixel.
// A product writes whole vectors, whose end may reach into the next pixel, which is written later. Buffers therefore have
// room for one more vector.

#include <cmath>
#include <memory>
#include <vector>

#include "lanes.h"

namespace {

constexpr Int PART = 256;   // pixels
constexpr Int ROW = 16;     // pixels
constexpr Int CHUNKS = 32;  // of the parts; each has its own sums
constexpr Int ROOM = 16;    // numbers: at least one vector
constexpr int BLOCK = 8;    // pixels or channels at a time, which share a loaded vector

// The sizes of z (pixels, channels_z) and y (pixels, channels).
struct Shape {
  Int pixels, channels_z, channels;
};

// Call work(chunk, first pixel, number of pixels) for all parts.
template <class Work>
void for_parts(Int pixels, int threads, Work work) {
  const Int parts = (pixels + PART - 1) / PART;
#pragma omp parallel for num_threads(threads)
  for (Int chunk = 0; chunk < CHUNKS; chunk++)
    for (Int part = parts * chunk / CHUNKS; part < parts * (chunk + 1) / CHUNKS; part++)
      work(chunk, part * PART, std::min(PART, pixels - part * PART));
}

// Call work(i, k) for all values i of some pixels; k is the place in the row.
template <class Work>
void for_values(Int pixels, Int channels, Work work) {
  for (Int start = 0; start < pixels * channels; start += ROW * channels) {
    const Int length = std::min(ROW, pixels - start / channels) * channels;
#pragma GCC ivdep
    for (Int k = 0; k < length; k++) work(start + k, k);
  }
}

// A number per channel, repeated for each pixel of a row.
template <class T, class Value>
std::vector<T> repeated(Int channels, Value value) {
  std::vector<T> row(ROW * channels);
  for (Int k = 0; k < ROW * channels; k++) row[k] = value(k % channels);
  return row;
}

// Sums over the pixels, by channel.
template <class T>
class ChannelSums {
  const Int channels;
  std::vector<double> sums;  // (CHUNKS, channels)

 public:
  explicit ChannelSums(Int channels) : channels(channels), sums(CHUNKS * channels) {}

  // Add value(i, k) for all values i of a part; k is the place in the row.
  template <class Value>
  void add(Int chunk, Int pixels, Value value) {
    std::vector<T> row(ROW * channels);
    T* __restrict sum = row.data();
    for_values(pixels, channels, [=](Int i, Int k) { sum[k] += value(i, k); });
    for (Int p = 0; p < ROW; p++)
      for (Int c = 0; c < channels; c++) sums[chunk * channels + c] += sum[p * channels + c];
  }

  double total(Int channel) const {
    double sum = 0;
    for (Int chunk = 0; chunk < CHUNKS; chunk++) sum += sums[chunk * channels + channel];
    return sum;
  }
};

// A matrix (rows, columns); zeros fill the rows up to whole vectors.
template <class T, int L>
struct Matrix {
  const Int rows, columns, width;
  std::vector<T> values;  // (rows, width)

  template <class Value>
  Matrix(Int rows, Int columns, Value value)
      : rows(rows), columns(columns), width((columns + L - 1) / L * L), values(rows * width) {
    for (Int a = 0; a < rows; a++)
      for (Int c = 0; c < columns; c++) values[a * width + c] = value(a, c);
  }
};

// out = x M for P pixels: x (P, rows), out (P, columns).
template <class T, int L, int P>
void multiply_pixels(const T* x, const Matrix<T, L>& m, T* out) {
  for (Int c = m.width - L; c >= 0; c -= L) {
    typename Lanes<T, L>::type sum[P] = {};
    for (Int a = 0; a < m.rows; a++) {
      const auto row = lanes<T, L>(m.values.data() + a * m.width + c);
      for (int p = 0; p < P; p++) sum[p] += x[p * m.rows + a] * row;
    }
    for (int p = 0; p < P; p++) lanes<T, L>(out + p * m.columns + c) = sum[p];
  }
}

template <class T, int L>
void multiply(const T* x, const Matrix<T, L>& m, T* out, Int pixels) {
  Int p = 0;
  for (; p + BLOCK <= pixels; p += BLOCK) multiply_pixels<T, L, BLOCK>(x + p * m.rows, m, out + p * m.columns);
  for (; p < pixels; p++) multiply_pixels<T, L, 1>(x + p * m.rows, m, out + p * m.columns);
}

// Sums over the pixels of x y', for maps of A and B channels.
template <class T, int L>
class ProductSums {
  const Int A, B, rows, width;
  std::vector<double> sums;  // (CHUNKS, rows, width)

 public:
  ProductSums(Int A, Int B)
      : A(A), B(B), rows((A + BLOCK - 1) / BLOCK * BLOCK), width((B + L - 1) / L * L), sums(CHUNKS * rows * width) {}

  // Add those of a part. Both maps are read up to the end of a block or a vector.
  void add(Int chunk, Int pixels, const T* x, const T* y) {
    for (Int b = 0; b < width; b += L)
      for (Int a = 0; a < rows; a += BLOCK) {
        typename Lanes<T, L>::type sum[BLOCK] = {};
        for (Int p = 0; p < pixels; p++) {
          const auto value = lanes<T, L>(y + p * B + b);
          for (int i = 0; i < BLOCK; i++) sum[i] += x[p * A + a + i] * value;
        }
        for (int i = 0; i < BLOCK; i++)
          lanes<double, L>(&sums[(chunk * rows + a + i) * width + b]) +=
              __builtin_convertvector(sum[i], typename Lanes<double, L>::type);
      }
  }

  double total(Int a, Int b) const {
    double sum = 0;
    for (Int chunk = 0; chunk < CHUNKS; chunk++) sum += sums[(chunk * rows + a) * width + b];
    return sum;
  }
};

template <class T>
void copy(const T* from, T* __restrict to, Int count, bool relu) {
  for (Int i = 0; i < count; i++) to[i] = relu && from[i] <= 0 ? T(0) : from[i];
}

// Memory for the values of a part.
template <class T>
std::unique_ptr<T[]> buffer(Int channels) {
  return std::unique_ptr<T[]>(new T[PART * channels + ROOM]);
}

template <class T, int L>
void forward(const T* z, const T* w, T* y, const T* gamma, T* mean, T* variance, T* scale, const T* beta, T* out,
             Shape shape, bool relu, bool training, double eps, int threads) {
  const auto [pixels, A, C] = shape;
  const Matrix<T, L> m(w ? A : 0, C, [&](Int a, Int c) { return w[c * A + a]; });
  std::vector<T> x(A), first_y(C + ROOM);
  copy(z, x.data(), A, relu);
  w ? multiply<T, L>(x.data(), m, first_y.data(), 1) : copy(z, first_y.data(), C, false);
  const auto shift = repeated<T>(C, [&](Int c) { return first_y[c]; });  // near the mean: squares stay exact
  ChannelSums<T> sums(C), squares(C);
  for_parts(pixels, threads, [&](Int chunk, Int first, Int count) {
    const auto product = buffer<T>(C);
    const T *part = y + first * C, *k = shift.data();
    if (w) {
      const auto x = buffer<T>(A);
      copy(z + first * A, x.get(), count * A, relu);
      multiply<T, L>(x.get(), m, product.get(), count);
      copy(product.get(), y + first * C, count * C, false);
      part = product.get();
    }
    if (!training) return;
    sums.add(chunk, count, [=](Int i, Int j) { return part[i] - k[j]; });
    squares.add(chunk, count, [=](Int i, Int j) { return (part[i] - k[j]) * (part[i] - k[j]); });
  });
  for (Int c = 0; c < C; c++) {
    if (training) {
      const double difference = sums.total(c) / pixels;
      mean[c] = shift[c] + difference;
      variance[c] = std::max(0.0, squares.total(c) / pixels - difference * difference);
    }
    scale[c] = 1 / std::sqrt(variance[c] + eps);
  }
  const auto gain = repeated<T>(C, [&](Int c) { return gamma[c] * scale[c]; });
  const auto constant = repeated<T>(C, [&](Int c) { return beta[c] - gamma[c] * scale[c] * mean[c]; });
  for_parts(pixels, threads, [&](Int, Int first, Int count) {
    const T *part = y + first * C, *a = gain.data(), *b = constant.data();
    T* to = out + first * C;
    for_values(count, C, [=](Int i, Int k) { to[i] = a[k] * part[i] + b[k]; });
  });
}

template <class T, int L>
void backward(const T* g, const T* z, const T* w, const T* y, const T* gamma, const T* mean, const T* scale, T* d_z,
              T* d_w, T* d_gamma, T* d_beta, Shape shape, bool relu, bool training, int threads) {
  const auto [pixels, A, C] = shape;
  const auto means = repeated<T>(C, [&](Int c) { return mean[c]; });
  ChannelSums<T> sums(C), products(C);
  for_parts(pixels, threads, [&](Int chunk, Int first, Int count) {
    const T *part_g = g + first * C, *part_y = y + first * C, *k = means.data();
    sums.add(chunk, count, [=](Int i, Int) { return part_g[i]; });
    products.add(chunk, count, [=](Int i, Int j) { return part_g[i] * (part_y[i] - k[j]); });
  });
  std::vector<double> average(C), slope(C);  // average(g) and r^2 s
  for (Int c = 0; c < C; c++) {
    d_gamma[c] = scale[c] * products.total(c);
    d_beta[c] = sums.total(c);
    if (!training) continue;
    average[c] = sums.total(c) / pixels;
    slope[c] = scale[c] * scale[c] * products.total(c) / pixels;
  }
  const auto gain = repeated<T>(C, [&](Int c) { return gamma[c] * scale[c]; });
  const auto factor = repeated<T>(C, [&](Int c) { return -gain[c] * slope[c]; });
  const auto constant = repeated<T>(C, [&](Int c) { return gain[c] * (slope[c] * mean[c] - average[c]); });
  if (!w && !d_z) return;
  const Matrix<T, L> m(C, w ? A : 0, [&](Int c, Int a) { return w[c * A + a]; });
  ProductSums<T, L> weight_sums(C, w ? A : 0);
  for_parts(pixels, threads, [&](Int chunk, Int first, Int count) {
    const T *part_g = g + first * C, *part_y = y + first * C, *part_z = z + first * A;
    const T *a = gain.data(), *b = factor.data(), *k = constant.data();
    const auto x = buffer<T>(A), product = buffer<T>(A), own = buffer<T>(C);
    T* d_y = w ? own.get() : d_z + first * C;
    for_values(count, C, [=](Int i, Int j) { d_y[i] = a[j] * part_g[i] + b[j] * part_y[i] + k[j]; });
    if (!w) return;
    copy(part_z, x.get(), count * A, relu);
    weight_sums.add(chunk, count, d_y, x.get());
    if (!d_z) return;
    multiply<T, L>(d_y, m, product.get(), count);
    const T* from = product.get();
    T* to = d_z + first * A;
#pragma GCC ivdep
    for (Int i = 0; i < count * A; i++) to[i] = relu && part_z[i] <= 0 ? T(0) : from[i];
  });
  if (!w) return;
  for (Int c = 0; c < C; c++)
    for (Int a = 0; a < A; a++) d_w[c * A + a] = weight_sums.total(c, a);
}

}  // namespace

#define EXPORT(T)                                                                                                      \
  extern "C" void pointwise_norm_##T(const T* z, const T* w, T* y, const T* gamma, T* mean, T* variance, T* scale,     \
                                     const T* beta, T* out, Int pixels, Int channels_z, Int channels, Int relu,        \
                                     Int training, double eps, int threads) {                                          \
    forward<T, VECTOR / sizeof(T)>(z, w, y, gamma, mean, variance, scale, beta, out, {pixels, channels_z, channels},   \
                                   relu, training, eps, threads);                                                      \
  }                                                                                                                    \
  extern "C" void pointwise_norm_gradients_##T(const T* g, const T* z, const T* w, const T* y, const T* gamma,         \
                                               const T* mean, const T*, const T* scale, T* d_z, T* d_w, T* d_gamma,    \
                                               T* d_beta, Int pixels, Int channels_z, Int channels, Int relu,          \
                                               Int training, int threads) {                                            \
    backward<T, VECTOR / sizeof(T)>(g, z, w, y, gamma, mean, scale, d_z, d_w, d_gamma, d_beta,                         \
                                    {pixels, channels_z, channels}, relu, training, threads);                          \
  }

EXPORT(float)
EXPORT(double)
