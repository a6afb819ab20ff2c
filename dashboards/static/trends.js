/* On the page of an operator or model: the times of the chosen case over commits. The case's series
   is loaded when its figure comes into view, or when it is chosen. */
(function () {
  "use strict";

  var columns = window.KERNL_COLUMNS;
  var page = window.KERNL_PAGE;
  var series = window.KERNL_SERIES;
  var shown = window.KERNL_HOW;
  var times = window.KERNL_TIMES;

  function fill(table, rows) {
    var head = document.createElement("tr");
    rows[0].forEach(function (text) {
      var cell = columns.element("th", text);
      cell.scope = "col";
      head.appendChild(cell);
    });
    table.tHead.textContent = "";
    table.tHead.appendChild(head);
    table.tBodies[0].textContent = "";
    rows.slice(1).forEach(function (texts) {
      var row = document.createElement("tr");
      texts.forEach(function (text, column) {
        var cell = columns.element(column ? "td" : "th", text);
        if (!column) {
          cell.scope = "row";
        }
        row.appendChild(cell);
      });
      table.tBodies[0].appendChild(row);
    });
  }

  function follow(select) {
    var plot = document.getElementById(select.dataset.plot);
    var table = document.getElementById(select.dataset.plot + "-table");
    var link = select.closest(".chooser").querySelector("a.case-page");
    var folder = select.dataset.series;
    var inView = false;
    var asked = 0;
    var now = null;
    var how = shown.offer(plot, chosen);

    function draw(all) {
      var chosenHow = how.now(all);
      var figure = series.trend(now, all, chosenHow);
      how.follow(figure, all);
      series.draw(plot, figure);
      fill(table, times.rows(now, all, chosenHow));
      plot.dataset.drawn = page.themeName();
    }

    function failed(words) {
      series.empty(plot, words + ". Build the site again.");
    }

    function load() {
      var turn = (asked += 1);
      columns.loadAll(
        ["commits", folder],
        function (values) {
          var all = values[0];
          var listed = values[1];
          var place = listed.cases.indexOf(select.value);
          var part = Math.floor(place / listed.size);
          if (place < 0 || turn !== asked) {
            return;
          }
          columns.load(
            folder + "-" + part,
            function (found) {
              if (turn !== asked) {
                return;
              }
              var of = all.machines.filter(function (one) {
                return one.folder === select.dataset.machine;
              })[0];
              now = {
                series: found, at: place - part * listed.size, suite: select.dataset.suite,
                moves: listed.moves[place], changes: of.changes[select.dataset.suite],
                machine: of.name,
                title: document.querySelector("h1").textContent + " " + select.value + " on " + of.name,
              };
              page.whenDrawable(function () {
                if (turn === asked) {
                  draw(all);
                }
              });
            },
            failed
          );
        },
        failed
      );
    }

    function chosen() {
      var place = new URLSearchParams(link.hash.slice(1));
      place.set("case", select.value);
      shown.keep(place);
      link.hash = place.toString();
      if (inView) {
        load();
      }
    }

    function readHash() {
      var wanted = page.state().get("case");
      var known = Array.prototype.some.call(select.options, function (option) {
        return option.value === wanted;
      });
      if (known) {
        select.value = wanted;
      }
      chosen();
    }

    select.addEventListener("change", function () {
      chosen();
      page.remember("case", select.value);
    });
    window.addEventListener("hashchange", readHash);
    page.onTheme(chosen);
    readHash();
    new IntersectionObserver(
      function (entries) {
        if (!inView && entries[0].isIntersecting) {
          inView = true;
          load();
        }
      },
      { rootMargin: "400px 0px" }
    ).observe(plot);
  }

  /* ---- the figures of compiled code, each of one metric ---- */

  function compiled(select) {
    var plots = select.dataset.plots.split(" ");
    var metrics = select.dataset.metrics.split(" ");
    var commits = select.dataset.commits.split(" ").map(Number);
    var said = select.closest(".chooser").querySelector("[role=status]");
    var folder = select.dataset.compiled;

    /** What the traces of a metric's figure show of a case: one for each architecture. */
    function values(found, at, metric) {
      if (!found.columns) {
        found.columns = columns.unpack(found.value);
      }
      var number = found.metrics.indexOf(metric);
      var places = commits.map(function (commit) {
        return found.commits.indexOf(commit);
      });
      return found.variants.map(function (_, variant) {
        var first =
          ((at * found.variants.length + variant) * found.metrics.length + number) *
          found.commits.length;
        var y = places.map(function (place) {
          var value = place < 0 ? NaN : found.columns[first + place];
          return isFinite(value) ? value : null;
        });
        return { y: y, customdata: y.map(function (value) { return words(value, metric); }) };
      });
    }

    function words(value, metric) {
      return value === null ? "not measured" : columns.amount(value, "codegen", metric);
    }

    function show() {
      var wanted = select.value;
      said.textContent = "";
      if (!select.selectedIndex) {
        plots.forEach(function (id) {
          page.show(id, null);
        });
        return;
      }
      function failed(why) {
        said.textContent = why + ". Build the site again.";
      }
      columns.load(
        folder,
        function (listed) {
          var place = listed.cases.indexOf(wanted);
          var part = Math.floor(place / listed.size);
          columns.load(
            folder + "-" + part,
            function (found) {
              if (select.value === wanted) {
                plots.forEach(function (id, at) {
                  page.show(id, values(found, place - part * listed.size, metrics[at]));
                });
              }
            },
            failed
          );
        },
        failed
      );
    }

    function readHash() {
      var wanted = page.state().get("compiled");
      var known = Array.prototype.some.call(select.options, function (option) {
        return option.value === wanted;
      });
      if (known && select.value !== wanted) {
        select.value = wanted;
        show();
      }
    }

    select.addEventListener("change", function () {
      show();
      page.remember("compiled", select.selectedIndex ? select.value : "");
    });
    window.addEventListener("hashchange", readHash);
    readHash();
  }

  Array.prototype.forEach.call(document.querySelectorAll("select[data-series]"), follow);
  Array.prototype.forEach.call(document.querySelectorAll("select[data-compiled]"), compiled);
})();
