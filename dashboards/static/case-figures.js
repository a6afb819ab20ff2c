/* The figures of the page Case, as Plotly takes them. `now` is what is shown: {series, at, suite}, of
   which `series` is a file of data/of; `all` is data/commits.js. */
(function () {
  "use strict";

  var columns = window.KERNL_COLUMNS;
  var DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
  var SYMBOLS = ["circle", "square", "diamond", "x", "triangle-up", "star"];

  function commitLabel(all, number) {
    var one = all.commits[number];
    return [one[0].slice(0, 8), one[1], one[2]].filter(Boolean).join(" · ");
  }

  function unpacked(series) {
    if (!series.columns) {
      series.columns = {
        value: columns.unpack(series.value),
        low: columns.unpack(series.low),
        high: columns.unpack(series.high),
      };
    }
    return series.columns;
  }

  function known(value) {
    return isFinite(value) ? value : null;
  }

  /** The places of the commits that timed this case at all. */
  function timedAt(now) {
    var value = unpacked(now.series).value;
    var count = now.series.commits.length;
    return now.series.commits
      .map(function (_, place) {
        return place;
      })
      .filter(function (place) {
        return now.series.variants.some(function (_, variant) {
          return isFinite(value[(now.at * now.series.variants.length + variant) * count + place]);
        });
      });
  }

  function trend(now, all) {
    var unit = columns.units[now.suite];
    var of = unpacked(now.series);
    var count = now.series.commits.length;
    var places = timedAt(now);
    var labels = places.map(function (place) {
      return plain(commitLabel(all, now.series.commits[place]));
    });
    var traces = now.series.variants.map(function (name, variant) {
      var first = (now.at * now.series.variants.length + variant) * count;
      var trace = {
        type: "scatter", mode: "lines+markers", name: name, x: [], y: [], text: labels,
        customdata: [], connectgaps: true, meta: { role: name },
        line: { width: 2.4, dash: DASHES[variant % DASHES.length] },
        marker: { size: 7, symbol: SYMBOLS[variant % SYMBOLS.length] },
        error_y: { type: "data", symmetric: false, array: [], arrayminus: [], thickness: 1.2, width: 3 },
        hovertemplate: "<b>%{fullData.name}</b>  %{customdata}<br>%{text}<extra></extra>",
      };
      places.forEach(function (place, at) {
        var value = of.value[first + place];
        var low = of.low[first + place];
        var high = of.high[first + place];
        trace.x.push(at);
        trace.y.push(known(value * unit[0]));
        trace.error_y.array.push(known(Math.max(0, high - value) * unit[0]));
        trace.error_y.arrayminus.push(known(Math.max(0, value - low) * unit[0]));
        trace.customdata.push(
          columns.amount(value, now.suite) + " " + unit[1] +
            (isFinite(low) ? " (" + between(low, high, now.suite) + ")" : "")
        );
      });
      return trace;
    });
    var step = Math.max(1, Math.ceil(places.length / 6));
    var ticks = [];
    for (var tick = places.length - 1; tick >= 0; tick -= step) {
      ticks.unshift(tick);
    }
    return {
      traces: traces.filter(function (trace) {
        return trace.y.some(function (value) {
          return value !== null;
        });
      }),
      layout: {
        height: 380,
        xaxis: {
          title: { text: "commit" }, tickvals: ticks, range: [-0.4, places.length - 0.6],
          ticktext: ticks.map(function (at) {
            return all.commits[now.series.commits[places[at]]][0].slice(0, 8);
          }),
          showgrid: false, zeroline: false,
        },
        yaxis: { type: "log", title: { text: "time (" + unit[1] + ", log)" }, tickformat: "~g" },
      },
    };
  }

  function between(low, high, suite) {
    return columns.amount(low, suite) + " to " + columns.amount(high, suite);
  }

  /** Text that Plotly takes for text: it reads some markup. */
  function plain(text) {
    return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }

  function samples(now) {
    var unit = columns.units[now.suite];
    var traces = [];
    now.series.variants.forEach(function (name, variant) {
      var last = now.series.last[now.at][variant];
      if (last && last.status === "ok" && last.samples.length) {
        traces.push({
          type: "scatter", mode: "markers", name: name, meta: { role: name },
          x: last.samples.map(function (_, at) { return at + 1; }),
          y: last.samples.map(function (value) { return value * unit[0]; }),
          marker: { size: 6, symbol: SYMBOLS[variant % SYMBOLS.length], opacity: 0.8 },
          hovertemplate: "<b>%{fullData.name}</b>  sample %{x}: %{y:.4g} " + unit[1] + "<extra></extra>",
        });
      }
    });
    return {
      traces: traces,
      layout: {
        height: 300,
        xaxis: { title: { text: "sample, in the order of their taking" }, zeroline: false },
        yaxis: { type: "log", title: { text: "time (" + unit[1] + ", log)" }, tickformat: "~g" },
      },
    };
  }

  window.KERNL_CASE = {
    commitLabel: commitLabel,
    unpacked: unpacked,
    between: between,
    trend: trend,
    samples: samples,
  };
})();
