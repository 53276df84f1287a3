/** Numbers as texts; what is not there is a dash. */
export function number(value) {
  return value == null ? "–" : value.toFixed(3);
}

export function signed(value) {
  return value == null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
}

export function seconds(value) {
  return value == null ? "–" : `${value < 10 ? value.toFixed(2) : value.toFixed(0)} s`;
}

/** Of those that are there; null of none. */
export function mean(values) {
  const there = values.filter((value) => value != null);
  return there.length ? there.reduce((sum, value) => sum + value, 0) / there.length : null;
}
