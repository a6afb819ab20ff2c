/* Runs before the first paint: the reader's own choice of theme wins over the system's. */
(function () {
  "use strict";
  try {
    var chosen = window.localStorage.getItem("kernl-theme");
    if (chosen === "light" || chosen === "dark") {
      document.documentElement.setAttribute("data-theme", chosen);
    }
  } catch (unavailable) {
    /* No storage (private window, some file:// origins): the system's theme stays. */
  }
  document.documentElement.classList.add("has-script");
})();
