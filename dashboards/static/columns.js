/* Loads the script files of dashboards/loaded/shards.py and unpacks their columns.
   A page that lies on a disk may not fetch, but it may add a script. */
(function () {
  "use strict";

  var WIDTHS = { u8: 1, u16: 2, u32: 4, f32: 4, f64: 8 };
  var got = {};
  var asked = {};

  window.KERNL_DATA = function (name, value) {
    got[name] = value;
  };

  /** Calls done(value) once data/NAME.js is there, or failed(words). A file is loaded once. */
  function load(name, done, failed) {
    if (Object.prototype.hasOwnProperty.call(got, name)) {
      done(got[name]);
      return;
    }
    if (asked[name]) {
      asked[name].push([done, failed]);
      return;
    }
    asked[name] = [[done, failed]];
    var script = document.createElement("script");
    script.src = "data/" + name + ".js";
    function ended() {
      var waiting = asked[name];
      delete asked[name];
      var there = Object.prototype.hasOwnProperty.call(got, name);
      waiting.forEach(function (one) {
        if (there) {
          one[0](got[name]);
        } else if (one[1]) {
          one[1]("data/" + name + ".js could not be loaded");
        }
      });
    }
    script.addEventListener("load", ended);
    script.addEventListener("error", ended);
    document.head.appendChild(script);
  }

  /** Calls done(values) once all of them are there, in their order. */
  function loadAll(names, done, failed) {
    var values = [];
    var left = names.length;
    var stopped = false;
    if (!left) {
      done(values);
    }
    names.forEach(function (name, place) {
      load(
        name,
        function (value) {
          values[place] = value;
          left -= 1;
          if (!left && !stopped) {
            done(values);
          }
        },
        function (words) {
          if (!stopped) {
            stopped = true;
            failed(words);
          }
        }
      );
    });
  }

  /** A column as a typed array. */
  function unpack(column) {
    var width = Object.keys(column)[0];
    var text = window.atob(column[width]);
    var bytes = new Uint8Array(text.length);
    for (var place = 0; place < text.length; place += 1) {
      bytes[place] = text.charCodeAt(place);
    }
    var view = new DataView(bytes.buffer);
    var size = WIDTHS[width];
    var count = bytes.length / size;
    var read = {
      u8: function (at) { return view.getUint8(at); },
      u16: function (at) { return view.getUint16(at, true); },
      u32: function (at) { return view.getUint32(at, true); },
      f32: function (at) { return view.getFloat32(at, true); },
      f64: function (at) { return view.getFloat64(at, true); },
    }[width];
    var kinds = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f32: Float32Array };
    var found = new (kinds[width] || Float64Array)(count);
    for (place = 0; place < count; place += 1) {
      found[place] = read(place * size);
    }
    return found;
  }

  /* ---- numbers as the other pages write them ---- */

  var UNITS = { kernels: [1e6, "µs"], models: [1e3, "ms"] };

  /** A time in its suite's unit, or a count. */
  function amount(value, suite, metric) {
    if (typeof value !== "number" || !isFinite(value)) {
      return "–";
    }
    if (metric === "occupancy") {
      return (100 * value).toFixed(0) + " %";
    }
    var unit = UNITS[suite];
    if (!unit) {
      return String(Math.round(value));
    }
    var scaled = value * unit[0];
    var digits = scaled >= 1000 ? 0 : scaled >= 100 ? 1 : scaled >= 10 ? 2 : 3;
    return scaled.toFixed(digits);
  }

  /** A ratio as a change in per cent. */
  function percent(ratio) {
    if (typeof ratio !== "number" || isNaN(ratio)) {
      return "–";
    }
    if (ratio === Infinity) {
      return "from 0";
    }
    var change = 100 * (ratio - 1);
    return (change > 0 ? "+" : change < 0 ? "−" : "") + Math.abs(change).toFixed(1) + " %";
  }

  /** A commit of data/commits.js in a line. */
  function commitLabel(all, number) {
    var one = all.commits[number];
    return [one[0].slice(0, 8), one[1], one[2]].filter(Boolean).join(" · ");
  }

  function option(select, value, label) {
    var found = document.createElement("option");
    found.value = value;
    found.textContent = label;
    select.appendChild(found);
    return found;
  }

  /** Offers choices, of which the one that was chosen before stays where it is still there. */
  function offer(select, choices, wanted) {
    select.textContent = "";
    choices.forEach(function (one) {
      option(select, one[0], one[1]);
    });
    var values = choices.map(function (one) {
      return one[0];
    });
    select.value = values.indexOf(wanted) >= 0 ? wanted : values.length ? values[0] : "";
  }

  function element(name, text, className) {
    var found = document.createElement(name);
    if (text !== undefined) {
      found.textContent = text;
    }
    if (className) {
      found.className = className;
    }
    return found;
  }

  window.KERNL_COLUMNS = {
    load: load,
    loadAll: loadAll,
    unpack: unpack,
    amount: amount,
    percent: percent,
    commitLabel: commitLabel,
    offer: offer,
    element: element,
    units: UNITS,
  };
})();
