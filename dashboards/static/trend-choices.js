/* How the figures of times along commits are shown: as times, over eager or relative to a commit, at
   even places or by date. All figures of a page are shown alike, and the address says how. */
(function () {
  "use strict";

  var columns = window.KERNL_COLUMNS;
  var page = window.KERNL_PAGE;
  var CHOICES = {
    as: [["time", "time"], ["eager", "speedup over eager"], ["relative", "relative to a commit"]],
    x: [["evenly", "evenly"], ["date", "by date"]],
  };
  var KEYS = ["as", "x", "from"];
  var chosen = {};
  var figures = [];

  /** Takes over what the address says; says whether anything changed. */
  function read() {
    var kept = page.state();
    var before = JSON.stringify(chosen);
    Object.keys(CHOICES).forEach(function (key) {
      var known = CHOICES[key].some(function (one) { return one[0] === kept.get(key); });
      chosen[key] = known ? kept.get(key) : CHOICES[key][0][0];
    });
    chosen.from = /^[0-9a-f]{8,40}$/.test(kept.get("from") || "") ? kept.get("from") : "";
    return JSON.stringify(chosen) !== before;
  }

  function refresh() {
    figures.forEach(function (figure) {
      figure.as.value = chosen.as;
      figure.x.value = chosen.x;
      figure.from.parentNode.hidden = chosen.as !== "relative";
      figure.changed();
    });
  }

  function choose(key, value) {
    var standard = CHOICES[key] && value === CHOICES[key][0][0];
    chosen[key] = value;
    page.remember(key, standard ? "" : value);
    refresh();
  }

  function select(row, words, key) {
    var label = columns.element("label", words + " ");
    var found = document.createElement("select");
    found.dataset.how = key;
    found.autocomplete = "off";
    columns.offer(found, CHOICES[key] || [], chosen[key]);
    found.addEventListener("change", function () {
      choose(key, found.value);
    });
    label.appendChild(found);
    row.appendChild(label);
    return found;
  }

  function short(all, number) {
    return all.commits[number][0].slice(0, 12);
  }

  /** Puts the choices above a plot; they call changed() whenever the figure is to be drawn again. */
  function offer(plot, changed) {
    var row = columns.element("p", undefined, "filter how");
    var figure = {
      as: select(row, "Show", "as"), from: select(row, "relative to", "from"),
      x: select(row, "Commits", "x"), changed: changed,
    };
    figure.from.parentNode.hidden = chosen.as !== "relative";
    plot.closest("figure").querySelector("figcaption").insertAdjacentElement("afterend", row);
    figures.push(figure);

    return {
      row: row,
      /** What series.js takes; the commit is a number of data/commits.js, or -1. */
      now: function (all) {
        var from = chosen.from ? all.commits.findIndex(function (one) {
          return one[0].indexOf(chosen.from) === 0;
        }) : -1;
        return { as: chosen.as, x: chosen.x, from: from, width: plot.clientWidth };
      },
      /** Offers the commits of a figure of series.js, and lets a click on it choose one. */
      follow: function (drawn, all) {
        columns.offer(
          figure.from,
          drawn.numbers.map(function (number) {
            return [short(all, number), columns.commitLabel(all, number)];
          }),
          drawn.from === undefined ? "" : short(all, drawn.from)
        );
        drawn.choose = function (number) {
          if (chosen.as === "relative") {
            choose("from", short(all, number));
          }
        };
      },
    };
  }

  /** Adds to what an address holds how figures are shown. */
  function keep(place) {
    KEYS.forEach(function (key) {
      var value = page.state().get(key);
      if (value) {
        place.set(key, value);
      } else {
        place.delete(key);
      }
    });
  }

  read();
  window.addEventListener("hashchange", function () {
    if (read()) {
      refresh();
    }
  });
  window.KERNL_HOW = { offer: offer, keep: keep };
})();
