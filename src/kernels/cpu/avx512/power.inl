// Powers by vscalefps. After simd/math.inl.

// 2^x for x <= 0: as exact as the function for [0, 1], by default about two units in the last place. NaN stays NaN.
template <Vec (*kWithinOne)(Vec) = power_within_one>
inline Vec power_of_two(Vec x) {
  return Vec::scale_by_floor(kWithinOne(Vec::above_floor(x)), x);  // above the floor of an infinity: 0
}
