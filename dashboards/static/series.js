/* Times of one case over commits, and its samples, as figures that Plotly takes. `now` is what is
   shown: {series, at, suite, moves, changes}, of which `series` is a file of data/of, `moves` where
   the case moved, and `changes` where the machine's libraries did; `all` is data/commits.js. */
(function () {
  "use strict";

  var columns = window.KERNL_COLUMNS;
  var page = window.KERNL_PAGE;

  /** With more commits than so many, intervals are bands and lines have no marks. */
  var BARS = 120;

  /** The one of a theme's dashes or symbols that an implementation has. */
  function own(kind, variant) {
    var some = page.theme()[kind];
    return some[variant % some.length];
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

  /** The implementations that have any time of this case. */
  function timed(now) {
    var value = unpacked(now.series).value;
    var count = now.series.commits.length;
    return now.series.variants.filter(function (_, variant) {
      var first = (now.at * now.series.variants.length + variant) * count;
      return value.subarray(first, first + count).some(isFinite);
    });
  }

  function said(now, variant, place) {
    var of = unpacked(now.series);
    var at = (now.at * now.series.variants.length + variant) * now.series.commits.length + place;
    if (!isFinite(of.value[at])) {
      return "not measured";
    }
    var ends = isFinite(of.low[at]) ? " (" + between(of.low[at], of.high[at], now.suite) + ")" : " (no interval)";
    return columns.amount(of.value[at], now.suite) + " " + columns.units[now.suite][1] + ends;
  }

  /** The figure's numbers: a row of texts for each commit, the first of them headings. */
  function rows(now, all) {
    var names = timed(now);
    return [["Commit"].concat(names)].concat(
      timedAt(now).map(function (place) {
        return [columns.commitLabel(all, now.series.commits[place])].concat(
          names.map(function (name) {
            return said(now, now.series.variants.indexOf(name), place);
          })
        );
      })
    );
  }

  /** Rings around kernl's times where the case moved. */
  function rings(now, places, unit) {
    var of = unpacked(now.series).value;
    var ours = now.series.variants.indexOf("kernl");
    var trace = {
      type: "scatter", mode: "markers", name: "moved", x: [], y: [], customdata: [],
      meta: { role: "moved" },
      marker: { size: 17, symbol: "circle-open", line: { width: 2.5 } },
      hovertemplate: "<b>moved</b>  %{customdata}<extra></extra>",
    };
    (now.moves || []).forEach(function (move) {
      var place = now.series.commits.indexOf(move[0]);
      var value = of[(now.at * now.series.variants.length + ours) * now.series.commits.length + place];
      if (ours >= 0 && place >= 0 && isFinite(value)) {
        trace.x.push(places.indexOf(place));
        trace.y.push(value * unit);
        trace.customdata.push(plain(move[1]));
      }
    });
    return trace;
  }

  /** Dotted uprights between two commits where the libraries or the driver changed. */
  function uprights(now, places) {
    var shapes = [];
    var notes = [];
    (now.changes || []).forEach(function (change) {
      var at = places.findIndex(function (place) {
        return now.series.commits[place] >= change[0];
      });
      if (at <= 0) {
        return;
      }
      shapes.push({
        type: "line", x0: at - 0.5, x1: at - 0.5, y0: 0, y1: 1, yref: "paper",
        line: { dash: "dot", width: 1 },
      });
      notes.push({
        x: at - 0.5, y: 1, yref: "paper", yanchor: "bottom", showarrow: false, text: plain(change[1]),
        xanchor: at > places.length / 2 ? "right" : "left",
      });
    });
    return { shapes: shapes, annotations: notes };
  }

  /** The intervals of a trace as a band around its line: bars of hundreds of commits are a thicket. */
  function band(trace) {
    var known = trace.y.map(function (_, at) { return at; }).filter(function (at) {
      return trace.y[at] !== null && trace.error_y.array[at] !== null && trace.error_y.arrayminus[at] !== null;
    });
    function edge(at, side) {
      return side > 0 ? trace.y[at] + trace.error_y.array[at] : trace.y[at] - trace.error_y.arrayminus[at];
    }
    return {
      type: "scatter", mode: "lines", name: trace.name, meta: trace.meta, showlegend: false,
      x: known.concat(known.slice().reverse()), hoverinfo: "skip", fill: "toself",
      y: known.map(function (at) { return edge(at, 1); }).concat(
        known.slice().reverse().map(function (at) { return edge(at, -1); })
      ),
      line: { width: 0 },
    };
  }

  function trend(now, all) {
    var unit = columns.units[now.suite];
    var of = unpacked(now.series);
    var count = now.series.commits.length;
    var places = timedAt(now);
    var labels = places.map(function (place) {
      return plain(columns.commitLabel(all, now.series.commits[place]));
    });
    var many = places.length > BARS;
    var traces = now.series.variants.map(function (name, variant) {
      var first = (now.at * now.series.variants.length + variant) * count;
      var trace = {
        type: "scatter", mode: many ? "lines" : "lines+markers", name: name, x: [], y: [], text: labels,
        customdata: [], connectgaps: true, meta: { role: name },
        line: { width: 2.4, dash: own("dashes", variant) },
        marker: { size: 7, symbol: own("symbols", variant) },
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
        trace.customdata.push(said(now, variant, place));
      });
      return trace;
    });
    var step = Math.max(1, Math.ceil(places.length / 6));
    var ticks = [];
    for (var tick = places.length - 1; tick >= 0; tick -= step) {
      ticks.unshift(tick);
    }
    traces = traces.filter(function (trace) {
      return trace.y.some(function (value) {
        return value !== null;
      });
    });
    if (many) {
      var bands = traces.map(band);
      traces.forEach(function (trace) {
        delete trace.error_y;
      });
      traces = bands.concat(traces);
    }
    var moved = rings(now, places, unit[0]);
    var lines = uprights(now, places);
    return {
      traces: moved.x.length ? traces.concat([moved]) : traces,
      layout: {
        height: 380,
        shapes: lines.shapes,
        annotations: lines.annotations,
        legend: lines.shapes.length ? { y: 1.1 } : {},
        margin: lines.shapes.length ? { t: 64 } : {},
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
          marker: { size: 6, symbol: own("symbols", variant), opacity: 0.8 },
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

  /** A trace in its colours; a band is that of its line, but pale. */
  function painted(trace, index) {
    var found = page.paint(trace, index);
    if (trace.fill) {
      found.fillcolor = found.line.color + "33";
    }
    return found;
  }

  /** Draws a figure of this file, or of it nothing where it has no lines; says whether it has. */
  function draw(plot, figure) {
    var first = plot.querySelector(".preview");
    if (first) {
      first.remove();
    }
    if (figure.traces.length && window.Plotly) {
      figure.layout.template = page.theme().template;
      window.Plotly.react(plot, figure.traces.map(painted), figure.layout, {
        displayModeBar: false, responsive: true,
      });
    }
    return figure.traces.length > 0;
  }

  window.KERNL_SERIES = {
    unpacked: unpacked,
    between: between,
    trend: trend,
    rows: rows,
    samples: samples,
    draw: draw,
  };
})();
