/* Draws figures when they come into view, lets a reader choose what they show, switches themes.
   Text from data only ever enters the page through textContent or through Plotly's labels.
   Needs address.js and downloads.js. */
(function () {
  "use strict";

  var address = window.KERNL_ADDRESS;
  var downloads = window.KERNL_DOWNLOADS;
  /* What the figures are made of; empty as long as Plotly comes later. */
  var shards = window.KERNL_FIGURES || {};
  var themes = window.KERNL_THEMES || {};
  var later = document.body.dataset.later;
  var root = document.documentElement;
  var dark = window.matchMedia("(prefers-color-scheme: dark)");

  function themeName() {
    return root.getAttribute("data-theme") || (dark.matches ? "dark" : "light");
  }

  /* ---- figures ---- */

  function paint(trace, index, theme) {
    var role = trace.meta && trace.meta.role;
    var painted = Object.assign({}, trace);
    if (role === "speedup") {
      painted.colorscale = theme.speedup;
      painted.textfont = { color: theme.cell };
      return painted;
    }
    var known = Object.prototype.hasOwnProperty.call(theme.roles, role);
    var colour = known ? theme.roles[role] : theme.spare[index % theme.spare.length];
    painted.line = Object.assign({}, trace.line, { color: colour });
    painted.marker = Object.assign({}, trace.marker, { color: colour });
    if (trace.error_y) {
      painted.error_y = Object.assign({}, trace.error_y, { color: colour });
    }
    return painted;
  }

  function draw(plot) {
    var figure = shards[plot.id];
    if (!figure || !window.Plotly) {
      plot.textContent = "This figure could not be drawn; its numbers are in the table below it.";
      return;
    }
    var theme = themes[themeName()];
    var chosen = figure.shown || figure.choices[Number(plot.dataset.choice || 0)] || [];
    var traces = figure.data.map(function (trace, index) {
      return paint(Object.assign({}, trace, chosen[index]), index, theme);
    });
    var layout = Object.assign({}, JSON.parse(JSON.stringify(figure.layout)), {
      template: theme.template,
    });
    plot.dataset.drawn = themeName();
    window.Plotly.react(plot, traces, layout, { displayModeBar: false, responsive: true });
  }

  var plots = Array.prototype.slice.call(document.querySelectorAll(".plot:not([data-drawn-by])"));
  function reserve() {
    plots.forEach(function (plot) {
      var figure = shards[plot.id];
      if (figure && figure.layout.height) {
        plot.style.minHeight = figure.layout.height + "px";
      }
    });
  }
  var watcher = new IntersectionObserver(
    function (entries) {
      entries.forEach(function (entry) {
        if (entry.isIntersecting && !entry.target.dataset.drawn) {
          draw(entry.target);
        }
      });
    },
    { rootMargin: "400px 0px" }
  );
  function watch() {
    reserve();
    plots.forEach(function (plot) {
      watcher.observe(plot);
    });
  }

  /** Loads Plotly and the figures, where a page shows drawings first, then calls done(). */
  function fetchFigures(done) {
    var files = later.split(" ");
    later = "";
    files.forEach(function (file, place) {
      var script = document.createElement("script");
      script.src = file;
      script.async = false;
      if (place === files.length - 1) {
        script.addEventListener("load", function () {
          shards = window.KERNL_FIGURES || {};
          themes = window.KERNL_THEMES || {};
          document.body.removeAttribute("data-later");
          plots.forEach(function (plot) {
            plot.textContent = "";
          });
          done();
          watch();
        });
      }
      document.head.appendChild(script);
    });
  }

  var waiting = [];

  /** Calls done() once Plotly is there, which a page may load late. */
  function whenDrawable(done) {
    if (later) {
      waiting.push(done);
      fetchFigures(function () {
        waiting.splice(0).forEach(function (one) {
          one();
        });
      });
    } else if (window.Plotly || !waiting.length) {
      done();
    } else {
      waiting.push(done);
    }
  }

  if (later && document.body.dataset.soon !== undefined) {
    window.addEventListener("load", function () {
      window.setTimeout(function () {
        whenDrawable(function () {});
      }, 30);
    });
  } else if (later) {
    plots.forEach(function (plot) {
      ["pointerenter", "touchstart"].forEach(function (event) {
        plot.addEventListener(
          event,
          function () {
            whenDrawable(function () {});
          },
          { passive: true }
        );
      });
    });
  } else {
    watch();
  }

  var alsoRedrawn = [];

  function redraw() {
    alsoRedrawn.forEach(function (one) {
      one();
    });
    plots.forEach(function (plot) {
      if (plot.dataset.drawn) {
        draw(plot);
      }
    });
  }

  /* ---- choosing a case ---- */

  function fillTable(plot, choice) {
    var table = document.getElementById(plot.id + "-table");
    if (!table) {
      return;
    }
    Array.prototype.forEach.call(table.tBodies[0].rows, function (row, place) {
      choice.forEach(function (trace, column) {
        if (row.cells[column + 1] && trace.customdata) {
          row.cells[column + 1].textContent = trace.customdata[place];
        }
      });
    });
  }

  function choose(select) {
    if (later && select.selectedIndex > 0) {
      whenDrawable(function () {
        choose(select);
      });
      return;
    }
    select.dataset.figures.split(" ").forEach(function (id) {
      var plot = document.getElementById(id);
      var figure = shards[id];
      if (!plot || !figure || !figure.choices[select.selectedIndex]) {
        return;
      }
      plot.dataset.choice = String(select.selectedIndex);
      fillTable(plot, figure.choices[select.selectedIndex]);
      if (plot.dataset.drawn) {
        draw(plot);
      }
    });
  }

  var selects = Array.prototype.slice.call(document.querySelectorAll("select[data-figures]"));
  selects.forEach(function (select) {
    select.addEventListener("change", function () {
      choose(select);
      if (select.dataset.key) {
        address.remember(select.dataset.key, select.value);
      }
    });
  });

  function readHash() {
    var kept = address.state();
    selects.forEach(function (select) {
      var wanted = select.dataset.key && kept.get(select.dataset.key);
      if (wanted === null || wanted === undefined) {
        return;
      }
      Array.prototype.forEach.call(select.options, function (option, place) {
        if (option.value === wanted && select.selectedIndex !== place) {
          select.selectedIndex = place;
        }
      });
      choose(select);
    });
  }
  window.addEventListener("hashchange", readHash);
  readHash();

  /* ---- theme ---- */

  var toggle = document.getElementById("theme-toggle");
  function label() {
    var other = themeName() === "dark" ? "light" : "dark";
    toggle.setAttribute("aria-label", "Switch to the " + other + " theme");
    toggle.title = toggle.getAttribute("aria-label");
  }
  if (toggle) {
    toggle.hidden = false;
    label();
    toggle.addEventListener("click", function () {
      var other = themeName() === "dark" ? "light" : "dark";
      root.setAttribute("data-theme", other);
      try {
        window.localStorage.setItem("kernl-theme", other);
      } catch (unavailable) {
        /* The choice lasts as long as the page. */
      }
      label();
      redraw();
    });
    dark.addEventListener("change", function () {
      label();
      redraw();
    });
  }

  /* What the scripts of single pages use as well. */
  window.KERNL_PAGE = {
    state: address.state,
    remember: address.remember,
    themeName: themeName,
    onTheme: function (redrawn) {
      alsoRedrawn.push(redrawn);
    },
    paint: function (trace, index) {
      return paint(trace, index, themes[themeName()]);
    },
    theme: function () {
      return themes[themeName()];
    },
    whenDrawable: whenDrawable,
    /** Shows other values in a figure's first traces, and in its table; null for its own again. */
    show: function (id, values) {
      var plot = document.getElementById(id);
      var figure = shards[id];
      if (!plot || !figure) {
        return;
      }
      var choice = values || figure.choices[0];
      figure.shown = values;
      fillTable(plot, choice);
      if (plot.dataset.drawn) {
        draw(plot);
      }
    },
    download: downloads.saveRows,
    offerParquet: downloads.offerParquet,
  };
})();
