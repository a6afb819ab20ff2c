/* What stands below a figure of a case: images of it to keep, and the way back from a zoom. */
(function () {
  "use strict";

  /** Pixels below a picture for its title. */
  var TITLE = 40;

  function button(words, clicked) {
    var found = document.createElement("button");
    found.type = "button";
    found.className = "plain";
    found.textContent = words;
    found.addEventListener("click", clicked);
    return found;
  }

  /** The ends of an axis as numbers; Plotly writes dates as text in UTC. */
  function ends(range) {
    return range.map(function (end) {
      var text = String(end);
      return /^\d+-\d+-\d+/.test(text)
        ? Date.parse(text.length > 10 ? text.replace(" ", "T") + "Z" : text)
        : Number(end);
    });
  }

  function moved(axis, begun) {
    if (!begun) {
      return axis.autorange === false;
    }
    var now = ends(axis.range);
    var first = ends(begun);
    var least = 0.001 * (first[1] - first[0]);
    return Math.abs(now[0] - first[0]) > least || Math.abs(now[1] - first[1]) > least;
  }

  function zoomed(plot) {
    return moved(plot.layout.xaxis, plot.kernl.range) || moved(plot.layout.yaxis, null);
  }

  function reset(plot) {
    var range = plot.kernl.range;
    var wanted = range ? { "xaxis.range": range.slice() } : { "xaxis.autorange": true };
    wanted["yaxis.autorange"] = true;
    window.Plotly.relayout(plot, wanted);
    plot.focus();
  }

  /* ---- images ---- */

  function save(name, blob) {
    var link = document.createElement("a");
    link.href = window.URL.createObjectURL(blob);
    link.download = name;
    link.click();
    window.setTimeout(function () {
      window.URL.revokeObjectURL(link.href);
    }, 10000);
  }

  /** The figure with its title below it, on the ground that it has on the page. */
  function framed(plot) {
    var ground = window.getComputedStyle(document.documentElement).getPropertyValue("--paper").trim();
    var width = plot.clientWidth;
    var height = plot.clientHeight + TITLE;
    var layout = Object.assign({}, plot.layout, {
      width: width, height: height, paper_bgcolor: ground, plot_bgcolor: ground,
      title: {
        text: window.KERNL_MARKS.plain(plot.kernl.figure.title), font: { size: 13 },
        x: 0, xanchor: "left", xref: "paper", y: 0, yanchor: "bottom", yref: "container", pad: { b: 10 },
      },
      margin: Object.assign({}, plot.layout.margin, { b: 2.2 * TITLE }),
    });
    return { figure: { data: plot.data, layout: layout }, width: width, height: height };
  }

  /** Twice as many pixels as the screen has: Plotly's own way to PNG asks for images from blobs. */
  function toPng(address, size, done) {
    var picture = new Image();
    picture.onload = function () {
      var canvas = document.createElement("canvas");
      canvas.width = 2 * size.width;
      canvas.height = 2 * size.height;
      canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
      canvas.toBlob(done, "image/png");
    };
    picture.src = address;
  }

  function download(plot, format) {
    var size = framed(plot);
    var wanted = { format: "svg", width: size.width, height: size.height };
    var name = "kernl-" + plot.kernl.figure.title.replace(/[^A-Za-z0-9_.]+/g, "-") + "." + format;
    window.Plotly.toImage(size.figure, wanted).then(function (address) {
      if (format === "svg") {
        var text = decodeURIComponent(address.slice(address.indexOf(",") + 1));
        save(name, new Blob([text], { type: "image/svg+xml" }));
      } else {
        toPng(address, size, function (blob) {
          save(name, blob);
        });
      }
    });
  }

  /* ---- below a figure ---- */

  function build(plot) {
    var row = document.createElement("p");
    var back = button("Reset zoom", function () {
      reset(plot);
    });
    row.className = "filter tools";
    ["svg", "png"].forEach(function (format) {
      row.appendChild(button("Download " + format.toUpperCase(), function () {
        download(plot, format);
      }));
    });
    row.appendChild(back);
    plot.closest(".drawn").insertAdjacentElement("afterend", row);
    return { row: row, back: back };
  }

  /** Called once a figure is drawn; `figure.choose` takes the number of a commit that is clicked. */
  function show(plot, figure) {
    var there = plot.kernl || build(plot);
    var range = plot.layout.xaxis.range;
    there.range = range && figure.layout.xaxis.autorange !== true ? range.slice() : null;
    there.row.hidden = false;
    there.back.hidden = true;
    plot.kernl = there;
    there.figure = figure;
    if (!there.listens) {
      there.listens = true;
      plot.on("plotly_relayout", function () {
        there.back.hidden = !zoomed(plot);
      });
      plot.on("plotly_click", function (event) {
        var point = event.points[0];
        if (there.figure.choose && point.data.meta.place !== undefined) {
          there.figure.choose(there.figure.numbers[point.pointIndex]);
        }
      });
    }
  }

  /** Called where nothing is drawn any more. */
  function hide(plot) {
    if (plot.kernl) {
      plot.kernl.row.hidden = true;
      plot.kernl.listens = false;
    }
  }

  window.KERNL_TOOLS = { show: show, hide: hide };
})();
