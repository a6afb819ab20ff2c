/* Draws figures when they come into view, switches themes, sorts and filters tables.
   Text from data only ever enters the page through textContent or through Plotly's labels. */
(function () {
  "use strict";

  /* What the figures are made of; empty as long as Plotly comes later. */
  var shards = window.KERNL_FIGURES || {};
  var themes = window.KERNL_THEMES || {};
  var later = document.body.dataset.later;
  var root = document.documentElement;
  var dark = window.matchMedia("(prefers-color-scheme: dark)");

  function themeName() {
    return root.getAttribute("data-theme") || (dark.matches ? "dark" : "light");
  }

  var here = document.querySelector("nav [aria-current]");
  if (here) {
    var strip = here.closest("nav");
    strip.scrollLeft = here.offsetLeft - strip.offsetLeft - strip.clientWidth / 3;
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

  /* ---- what the address says ---- */

  function state() {
    return new URLSearchParams(window.location.hash.slice(1));
  }

  function remember(key, value) {
    var kept = state();
    if (value === "") {
      kept.delete(key);
    } else {
      kept.set(key, value);
    }
    try {
      window.history.replaceState(null, "", "#" + kept.toString());
    } catch (refused) {
      /* Some browsers refuse this on file://; the choice still holds. */
    }
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
        remember(select.dataset.key, select.value);
      }
    });
  });

  function readHash() {
    var kept = state();
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

  /* ---- tables ---- */

  function cellValue(row, column) {
    var cell = row.cells[column];
    var value = cell.dataset.value;
    return value === undefined ? cell.textContent.trim() : value === "" ? NaN : Number(value);
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") {
      /* Missing numbers sink to the bottom whichever way the column is sorted. */
      return isNaN(a) ? (isNaN(b) ? 0 : 2) : isNaN(b) ? -2 : a < b ? -1 : a > b ? 1 : 0;
    }
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function sortBy(table, column, up) {
    var heading = table.tHead.rows[0].cells[column];
    var body = table.tBodies[0];
    var rows = Array.prototype.slice.call(body.rows);
    rows.sort(function (a, b) {
      var order = compare(cellValue(a, column), cellValue(b, column));
      return Math.abs(order) === 2 || up ? order : -order;
    });
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (cell) {
      cell.removeAttribute("aria-sort");
    });
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    rows.forEach(function (row) {
      body.appendChild(row);
    });
  }

  Array.prototype.forEach.call(document.querySelectorAll("table.sortable"), function (table) {
    var headings = table.tHead.rows[0].cells;
    Array.prototype.forEach.call(headings, function (heading, column) {
      var button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      while (heading.firstChild) {
        button.appendChild(heading.firstChild);
      }
      button.addEventListener("click", function () {
        var up = heading.getAttribute("aria-sort") !== "ascending";
        sortBy(table, column, up);
        if (table.id) {
          remember("sort-" + table.id, column + (up ? "" : "-"));
        }
      });
      heading.appendChild(button);
    });
    var wanted = /^(\d+)(-?)$/.exec((table.id && state().get("sort-" + table.id)) || "");
    if (wanted && headings[Number(wanted[1])]) {
      sortBy(table, Number(wanted[1]), wanted[2] === "");
    }
  });

  function filterRows(input) {
    var table = document.getElementById(input.dataset.filter);
    var said = document.getElementById(input.dataset.filter + "-count");
    var words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    var shown = 0;
    Array.prototype.forEach.call(table.tBodies[0].rows, function (row) {
      var text = row.textContent.toLowerCase();
      row.hidden = !words.every(function (word) {
        return text.indexOf(word) >= 0;
      });
      shown += row.hidden ? 0 : 1;
    });
    said.textContent = shown + " of " + table.tBodies[0].rows.length + " rows";
  }

  Array.prototype.forEach.call(document.querySelectorAll("input[data-filter]"), function (input) {
    var key = "filter-" + input.dataset.filter;
    input.closest(".filter").hidden = false;
    input.addEventListener("input", function () {
      filterRows(input);
      remember(key, input.value);
    });
    if (state().get(key)) {
      input.value = state().get(key);
      filterRows(input);
    }
  });

  /* ---- downloads ---- */

  function oneLine(text) {
    return text.trim().replace(/\s+/g, " ");
  }

  function csvText(text) {
    var line = oneLine(text);
    /* A spreadsheet would run a text that begins like a formula. A number may begin so. */
    if (/^[=+\-@]/.test(line) && !/^[+-]?[0-9.]+( %)?$/.test(line)) {
      line = "'" + line;
    }
    return /[",]/.test(line) ? '"' + line.replace(/"/g, '""') + '"' : line;
  }

  function csvCell(cell) {
    var number = cell.dataset.value;
    return number !== undefined ? number : csvText(cell.textContent);
  }

  /** Saves a file under its name, which says of what type it is. */
  function save(name, parts) {
    var link = document.createElement("a");
    var type = /\.csv$/.test(name) ? "text/csv" : "application/vnd.apache.parquet";
    link.href = window.URL.createObjectURL(new Blob(parts, { type: type }));
    link.download = name;
    link.click();
    window.setTimeout(function () {
      window.URL.revokeObjectURL(link.href);
    }, 10000);
  }

  function saveCsv(name, lines) {
    save(name + ".csv", ["\ufeff", lines.join("\r\n") + "\r\n"]);
  }

  /** The shown part of a table as columns: of numbers where each cell has one to sort by. */
  function tableColumns(table) {
    var rows = Array.prototype.slice.call(table.rows);
    var head = rows.shift();
    return Array.prototype.map.call(head ? head.cells : [], function (heading, column) {
      function hasNumber(row) {
        return row.cells[column].dataset.value !== undefined;
      }
      var numeric = rows.length > 0 && rows.every(hasNumber);
      var shown = rows.filter(function (row) {
        return !row.hidden;
      });
      return {
        name: oneLine(heading.textContent),
        kind: numeric ? "number" : "text",
        values: shown.map(function (row) {
          var value = cellValue(row, column);
          return !numeric ? oneLine(row.cells[column].textContent) : isNaN(value) ? null : value;
        }),
      };
    });
  }

  /** Puts a button for Parquet beside one for CSV; clicked, it saves the columns that are found. */
  function offerParquet(button, name, find) {
    var other = document.createElement("button");
    other.type = "button";
    other.className = button.className;
    other.textContent = "Download Parquet";
    other.addEventListener("click", function () {
      save(name + ".parquet", [window.KERNL_PARQUET(find())]);
    });
    button.insertAdjacentElement("afterend", other);
  }

  Array.prototype.forEach.call(document.querySelectorAll("button[data-csv]"), function (button) {
    var page = window.location.pathname.split("/").pop().replace(/\.html$/, "") || "index";
    var table = document.getElementById(button.dataset.csv);
    var name = "kernl-" + page + "-" + table.id;
    button.hidden = false;
    button.addEventListener("click", function () {
      var rows = Array.prototype.filter.call(table.rows, function (row) {
        return !row.hidden;
      });
      var lines = rows.map(function (row) {
        return Array.prototype.map.call(row.cells, csvCell).join(",");
      });
      saveCsv(name, lines);
    });
    offerParquet(button, name, function () {
      return tableColumns(table);
    });
  });

  /* What the scripts of single pages use as well. */
  window.KERNL_PAGE = {
    state: state,
    remember: remember,
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
    /** Saves rows of text as name.csv. */
    download: function (name, rows) {
      saveCsv(
        name,
        rows.map(function (row) {
          return row.map(csvText).join(",");
        })
      );
    },
    offerParquet: offerParquet,
  };
})();
