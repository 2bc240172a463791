// The theme is set before the first paint, so that a dark room sees no white flash. A classic
// script, since modules run too late for that; the switch itself is in components/theme_switch.js.
try {
  const chosen = localStorage.getItem("imagewire.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be forbidden; the page then follows the system's theme.
}
