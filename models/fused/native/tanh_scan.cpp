// The recurrence of a tanh RNN, h_t = tanh(z_t + U h_{t-1}), and its gradient, over all time steps in one call. Each
// thread computes some of the sequences, which are independent of each other.

#include <cmath>
#include <type_traits>

#include "lanes.h"

namespace {

constexpr int ROWS = 4;                        // sequences at a time
constexpr int COLUMNS = VECTOR == 64 ? 4 : 2;  // vectors of channels at a time, as many as the registers can hold

// tanh(x) of L numbers. Lambert's continued fraction x / (1 + x^2 / (3 + x^2 / (5 + ...))), cut off after 9, is exact
// in float32 up to x = 1.25. It is evaluated at x / 8, as p / q, and tanh(2 x) = 2 p q / (p^2 + q^2) is applied three
// times. Beyond 10, tanh is 1 in float32.
template <int L>
auto hyperbolic_tangent(typename Lanes<float, L>::type x) {
  x = x > 10.f ? x * 0 + 10.f : x < -10.f ? x * 0 - 10.f : x;
  const auto y = x / 8, square = y * y;
  auto p = y * (1 + square * (1.f / 9 + square / 945)), q = 1 + square * (4.f / 9 + square / 63);
  for (int i = 0; i < 3; i++) {
    const auto numerator = 2 * p * q;
    q = p * p + q * q;
    p = numerator;
  }
  return p / q;
}

template <int L>
auto hyperbolic_tangent(typename Lanes<double, L>::type x) {
  for (int c = 0; c < L; c++) x[c] = std::tanh(x[c]);
  return x;
}

// out = finish(add + in M) for R rows of H channels and C L columns of M (H, H). Without `in`, out = finish(add).
template <class T, int L, int R, int C, class Finish>
void product(const T* add, const T* in, const T* m, T* out, Int channels, Finish finish) {
  typename Lanes<T, L>::type sum[R][C];
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) sum[r][c] = lanes<T, L>(add + r * channels + c * L);
  if (in)
    for (Int k = 0; k < channels; k++) {
      typename Lanes<T, L>::type by[C];
      for (int c = 0; c < C; c++) by[c] = lanes<T, L>(m + k * channels + c * L);
      for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) sum[r][c] += in[r * channels + k] * by[c];
    }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) lanes<T, L>(out + r * channels + c * L) = finish(sum[r][c], r * channels + c * L);
}

// The same for all columns of M: one time step of R sequences.
template <class T, int L, int R, class Finish>
void step(const T* add, const T* in, const T* m, T* out, Int channels, Finish finish) {
  Int j = 0;
  const auto from = [&](Int start) { return [=](auto sum, Int at) { return finish(sum, start + at); }; };
  for (; j + COLUMNS * L <= channels; j += COLUMNS * L)
    product<T, L, R, COLUMNS>(add + j, in, m + j, out + j, channels, from(j));
  for (; j < channels; j += L) product<T, L, R, 1>(add + j, in, m + j, out + j, channels, from(j));
}

// h_t = tanh(z_t + h_{t-1} M) of R sequences.
template <class T, int L, int R>
void forward(const T* z, const T* m, T* h, Int steps, Int all, Int channels) {
  for (Int t = 0; t < steps; t++, z += all, h += all)
    step<T, L, R>(z, t ? h - all : nullptr, m, h, channels,
                  [](auto sum, Int) { return hyperbolic_tangent<L>(sum); });
}

// d_t = (g_t + d_{t+1} M) (1 - h_t^2) of R sequences, from the last step to the first.
template <class T, int L, int R>
void backward(const T* g, const T* h, const T* m, T* d, Int steps, Int all, Int channels) {
  for (Int t = steps - 1; t >= 0; t--) {
    const T* own = h + t * all;
    step<T, L, R>(g + t * all, t + 1 < steps ? d + (t + 1) * all : nullptr, m, d + t * all, channels,
                  [=](auto sum, Int at) {
                    const auto& value = lanes<T, L>(own + at);
                    return sum * (1 - value * value);
                  });
  }
}

// Call `several` for each group of ROWS sequences, and `one` for each sequence of an incomplete group.
template <class Several, class One>
void for_all_rows(Int rows, int threads, Several several, One one) {
#pragma omp parallel for num_threads(threads)
  for (Int first = 0; first < rows; first += ROWS)
    if (first + ROWS <= rows)
      several(first);
    else
      for (Int n = first; n < rows; n++) one(n);
}

template <class T, int L>
void tanh_scan(const T* z, const T* m, T* h, Int steps, Int rows, Int channels, int threads) {
  const auto work = [&](auto count) {
    return [=](Int n) {
      forward<T, L, count>(z + n * channels, m, h + n * channels, steps, rows * channels, channels);
    };
  };
  for_all_rows(rows, threads, work(std::integral_constant<int, ROWS>()), work(std::integral_constant<int, 1>()));
}

template <class T, int L>
void tanh_scan_backward(const T* g, const T* h, const T* m, T* d, Int steps, Int rows, Int channels, int threads) {
  const auto work = [&](auto count) {
    return [=](Int n) {
      const Int at = n * channels;
      backward<T, L, count>(g + at, h + at, m, d + at, steps, rows * channels, channels);
    };
  };
  for_all_rows(rows, threads, work(std::integral_constant<int, ROWS>()), work(std::integral_constant<int, 1>()));
}

}  // namespace

#define EXPORT(T)                                                                                                      \
  extern "C" void tanh_scan_##T(const T* z, const T* m, T* h, Int steps, Int rows, Int channels, int threads) {        \
    constexpr int L = VECTOR / sizeof(T);                                                                              \
    (channels % L ? tanh_scan<T, L / 2> : tanh_scan<T, L>)(z, m, h, steps, rows, channels, threads);                   \
  }                                                                                                                    \
  extern "C" void tanh_scan_backward_##T(const T* g, const T* h, const T* m, T* d, Int steps, Int rows, Int channels,  \
                                         int threads) {                                                                \
    constexpr int L = VECTOR / sizeof(T);                                                                              \
    const auto work = channels % L ? tanh_scan_backward<T, L / 2> : tanh_scan_backward<T, L>;                          \
    work(g, h, m, d, steps, rows, channels, threads);                                                                  \
  }

EXPORT(float)
EXPORT(double)
