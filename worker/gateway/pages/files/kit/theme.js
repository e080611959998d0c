// Light or dark. Runs before the page is drawn, so that nothing flashes; a classic script for that reason.

(() => {
  const STORED = "shoal.theme";
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function stored() {
    try {
      return localStorage.getItem(STORED) || "auto";
    } catch {
      return "auto";
    }
  }

  function apply() {
    const theme = stored();
    root.dataset.theme = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
    root.dataset.themeChoice = theme;
  }

  dark.addEventListener("change", apply);
  apply();

  window.shoalTheme = {
    /** auto -> light -> dark -> auto; returns the new choice. */
    next() {
      const order = ["auto", "light", "dark"];
      const theme = order[(order.indexOf(stored()) + 1) % order.length];
      localStorage.setItem(STORED, theme);
      apply();
      return theme;
    },
    choice: stored,
  };
})();
