// Pools of 3 x 3 pixels with stride 1 or 2, and their gradients, for any number of channels. The border is padded, but no
// padding is a maximum or counts in an average.
//
// A pool is computed row by row: first over the rows of a window, then over its columns. The gradient of a maximum goes to
// the first of equal values, as in torch.

#include <vector>

#include "lanes.h"

namespace {

// Maps (images, rows, columns, channels) that are pooled with a stride.
struct Maps {
  Int images, rows, columns, channels, stride;

  Int rows_out() const { return (rows + stride - 1) / stride; }
  Int columns_out() const { return (columns + stride - 1) / stride; }
  Int row() const { return columns * channels; }  // numbers in a row of the input
  Int row_out() const { return columns_out() * channels; }
};

// The places of a window along one axis: [first, end).
struct Window {
  Int first, end;

  Window(Int out, Int stride, Int size) : first(std::max<Int>(0, out * stride - 1)), end(std::min(size, out * stride + 2)) {}
  Int size() const { return end - first; }
};

// Call work(i, k) for each number i of a row of the output that has a column `offset` (-1, 0 or 1) in its window; k is the
// number there in the row of the input.
template <class Work>
void for_column(const Maps& maps, Int offset, Work work) {
  const Int C = maps.channels, first = offset < 0;
  const Int end = std::min(maps.columns_out(), (maps.columns - 1 - offset + maps.stride) / maps.stride);
  const Int in = (first * maps.stride + offset) * C, out = first * C;
  if (maps.stride == 1) {
#pragma GCC ivdep
    for (Int i = 0; i < (end - first) * C; i++) work(out + i, in + i);
  } else {
    for (Int t = 0; t < end - first; t++)
#pragma GCC ivdep
      for (Int c = 0; c < C; c++) work(out + t * C + c, in + t * maps.stride * C + c);
  }
}

// For each number of a row of the output, the columns in its window.
template <class T>
std::vector<T> window_columns(const Maps& maps) {
  std::vector<T> columns(maps.row_out());
  for (Int i = 0; i < maps.row_out(); i++) columns[i] = Window(i / maps.channels, maps.stride, maps.columns).size();
  return columns;
}

// The larger number, or NaN.
template <class T>
T larger(T a, T b) {
  return b > a || b != b ? b : a;
}

template <class T, bool MAX>
void forward(const T* x, T* out, Maps maps, int threads) {
  const Int rows = maps.rows_out(), length = maps.row(), length_out = maps.row_out();
  const auto columns = window_columns<T>(maps);
#pragma omp parallel for num_threads(threads)
  for (Int task = 0; task < maps.images * rows; task++) {
    const Window window(task % rows, maps.stride, maps.rows);
    const T* in = x + task / rows * maps.rows * length;
    std::vector<T> pooled(in + window.first * length, in + (window.first + 1) * length);  // over the rows of the window
    T* row = pooled.data();
    T* to = out + task * length_out;
    const auto add = [](T a, T b) { return MAX ? larger(a, b) : a + b; };
    for (Int r = window.first + 1; r < window.end; r++) {
      const T* next = in + r * length;
#pragma GCC ivdep
      for (Int i = 0; i < length; i++) row[i] = add(row[i], next[i]);
    }
    for_column(maps, 0, [=](Int i, Int k) { to[i] = row[k]; });
    for (const Int offset : {-1, 1}) for_column(maps, offset, [=](Int i, Int k) { to[i] = add(to[i], row[k]); });
    if (MAX) continue;
    const T *counts = columns.data(), size = window.size();
#pragma GCC ivdep
    for (Int i = 0; i < length_out; i++) to[i] /= size * counts[i];
  }
}

// Add the gradient of a row of maxima to those of the pixels that they were taken from.
template <class T>
void maximum_gradient(const T* g, const T* x, const T* out, T* d_x, Window window, const Maps& maps) {
  std::vector<T> rest(g, g + maps.row_out());  // what has not found its maximum yet
  T* left = rest.data();
  for (Int r = window.first; r < window.end; r++)
    for (const Int offset : {-1, 0, 1}) {
      const T* in = x + r * maps.row();
      T* to = d_x + r * maps.row();
      for_column(maps, offset, [=](Int i, Int k) {
        const T found = in[k] == out[i] ? left[i] : T(0);
        to[k] += found;
        left[i] = in[k] == out[i] ? T(0) : left[i];
      });
    }
}

// Add the gradient of a row of averages to those of all pixels in their windows.
template <class T>
void average_gradient(const T* g, const T* columns, T* d_x, Window window, const Maps& maps) {
  std::vector<T> share(maps.row_out()), sums(maps.row());
  T *part = share.data(), *sum = sums.data();
  for (Int i = 0; i < maps.row_out(); i++) part[i] = g[i] / (window.size() * columns[i]);
  for (const Int offset : {-1, 0, 1}) for_column(maps, offset, [=](Int i, Int k) { sum[k] += part[i]; });
  for (Int r = window.first; r < window.end; r++) {
    T* to = d_x + r * maps.row();
    const Int length = maps.row();
#pragma GCC ivdep
    for (Int i = 0; i < length; i++) to[i] += sum[i];
  }
}

template <class T, bool MAX>
void backward(const T* g, const T* x, const T* out, T* d_x, Maps maps, int threads) {
  const Int size = maps.rows * maps.row();
  const auto columns = window_columns<T>(maps);
#pragma omp parallel for num_threads(threads)
  for (Int image = 0; image < maps.images; image++) {
    T* to = d_x + image * size;
    std::fill(to, to + size, T(0));
    for (Int r = 0; r < maps.rows_out(); r++) {
      const Int row = (image * maps.rows_out() + r) * maps.row_out();
      const Window window(r, maps.stride, maps.rows);
      if constexpr (MAX)
        maximum_gradient(g + row, x + image * size, out + row, to, window, maps);
      else
        average_gradient(g + row, columns.data(), to, window, maps);
    }
  }
}

}  // namespace

#define EXPORT(T)                                                                                                      \
  extern "C" void pool_##T(const T* x, T* out, Int images, Int rows, Int columns, Int channels, Int stride,            \
                           Int is_max, int threads) {                                                                  \
    (is_max ? forward<T, true> : forward<T, false>)(x, out, {images, rows, columns, channels, stride}, threads);       \
  }                                                                                                                    \
  extern "C" void pool_gradient_##T(const T* g, const T* x, const T* out, T* d_x, Int images, Int rows, Int columns,   \
                                    Int channels, Int stride, Int is_max, int threads) {                               \
    const auto work = is_max ? backward<T, true> : backward<T, false>;                                                 \
    work(g, x, out, d_x, {images, rows, columns, channels, stride}, threads);                                          \
  }

EXPORT(float)
EXPORT(double)
