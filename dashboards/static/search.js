/* Search over all cases: the list of names is loaded when somebody first wants it. */
(function () {
  "use strict";

  var MOST = 12;
  var box = document.getElementById("search");
  if (!box) {
    return;
  }
  var input = box.querySelector("input");
  var list = box.querySelector("ul");
  var said = box.querySelector("[role=status]");
  var asked = false;
  var waiting = false; /* Enter came before the list. */
  box.hidden = false;

  function load() {
    if (asked) {
      return;
    }
    asked = true;
    var script = document.createElement("script");
    script.src = "data/cases.js";
    script.addEventListener("load", function () {
      show();
      if (waiting) {
        go();
      }
    });
    script.addEventListener("error", function () {
      said.textContent = "the list of cases could not be loaded";
    });
    document.head.appendChild(script);
  }

  function matches(words) {
    var found = [];
    var total = 0;
    (window.KERNL_CASES || []).forEach(function (of) {
      of.cases.forEach(function (name) {
        var text = (of.name + " " + name).toLowerCase();
        var all = words.every(function (word) {
          return text.indexOf(word) >= 0;
        });
        if (all) {
          total += 1;
          if (found.length < MOST) {
            found.push({ text: of.name + " " + name, href: of.href, name: name });
          }
        }
      });
    });
    return { found: found, total: total };
  }

  function show() {
    var words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    list.textContent = "";
    said.textContent = "";
    list.hidden = true;
    if (!words.length || !window.KERNL_CASES) {
      return;
    }
    var result = matches(words);
    result.found.forEach(function (one) {
      var item = document.createElement("li");
      var link = document.createElement("a");
      link.textContent = one.text;
      link.href = one.href + "#" + new URLSearchParams({ case: one.name }).toString();
      link.addEventListener("click", close);
      item.appendChild(link);
      list.appendChild(item);
    });
    list.hidden = !result.found.length;
    said.textContent =
      result.total > MOST ? MOST + " of " + result.total + " cases" : result.total + " cases";
  }

  function go() {
    var first = list.querySelector("a");
    waiting = !window.KERNL_CASES;
    if (first && !list.hidden) {
      first.click();
    }
  }

  function close() {
    list.hidden = true;
    said.textContent = "";
  }

  function step(event, by) {
    var links = Array.prototype.slice.call(list.querySelectorAll("a"));
    var place = links.indexOf(document.activeElement) + by;
    event.preventDefault();
    if (place < 0) {
      input.focus();
    } else if (links[place]) {
      links[place].focus();
    }
  }

  input.addEventListener("focus", load);
  input.addEventListener("input", show);
  box.addEventListener("keydown", function (event) {
    if (event.key === "ArrowDown") {
      step(event, 1);
    } else if (event.key === "ArrowUp") {
      step(event, -1);
    } else if (event.key === "Enter" && event.target === input) {
      go();
    } else if (event.key === "Escape") {
      close();
      input.focus();
    }
  });
  box.addEventListener("focusout", function (event) {
    if (!box.contains(event.relatedTarget)) {
      close();
    }
  });
  document.addEventListener("keydown", function (event) {
    var typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      input.focus();
    }
  });
})();
