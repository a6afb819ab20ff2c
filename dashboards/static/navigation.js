/* The strip of pages in the header: it begins with a whole entry, and fades where it goes on. */
(function () {
  "use strict";

  var strip = document.querySelector("header nav");
  var list = strip.querySelector("ul");
  var entries = Array.prototype.slice.call(list.children);
  var FADE = 36; /* pixels at the right in which an entry is faint */
  var here = strip.querySelector("[aria-current]");

  /** Where an entry lies in the strip, whatever part of it is in view. */
  function placeOf(entry) {
    var box = entry.getBoundingClientRect();
    var left = box.left - strip.getBoundingClientRect().left + strip.scrollLeft;
    return { left: left, right: left + box.width };
  }

  /** Makes room behind the last entry, for the strip to begin with a whole one at its end too. */
  function makeRoom() {
    list.style.paddingRight = "0";
    var places = entries.map(placeOf);
    var end = places[places.length - 1].right - strip.clientWidth;
    if (end > 0) {
      var first = places.filter(function (place) {
        return place.left >= end;
      })[0];
      list.style.paddingRight = Math.ceil(first ? first.left - end : 0) + "px";
    }
  }

  /** Brings an entry and its neighbours into view, a third of the strip before it if that fits. */
  function bring(entry) {
    var places = entries.map(placeOf);
    var at = entries.indexOf(entry);
    var before = Math.max(at - 1, 0);
    var first = 0;
    while (first < before && places[first + 1].left <= places[at].left - strip.clientWidth / 3) {
      first += 1;
    }
    [Math.min(at + 1, entries.length - 1), at].forEach(function (last) {
      var most = last === at ? at : before;
      var room = strip.clientWidth - (last < entries.length - 1 ? FADE : 0);
      while (first < most && places[last].right - places[first].left > room) {
        first += 1;
      }
    });
    strip.scrollLeft = places[first].left;
  }

  function fade() {
    var end = placeOf(entries[entries.length - 1]).right;
    var rest = end - strip.clientWidth - strip.scrollLeft;
    strip.classList.toggle("more-before", strip.scrollLeft > 1);
    strip.classList.toggle("more-after", rest > 1);
  }

  function arrange() {
    makeRoom();
    bring(here ? here.parentNode : entries[0]);
    fade();
  }

  strip.addEventListener("scroll", fade, { passive: true });
  strip.addEventListener("focusin", function (event) {
    var entry = event.target.parentNode;
    var place = placeOf(entry);
    var start = strip.scrollLeft;
    if (place.left < start - 1 || place.right > start + strip.clientWidth + 1) {
      bring(entry);
    }
  });
  /* Other widths of the window, and a search box that appears beside it. */
  new ResizeObserver(arrange).observe(strip);
})();
