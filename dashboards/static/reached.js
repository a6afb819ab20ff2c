/* What lies between two commits, and whether it can have changed what was measured: the second look
   at times that come from different processes, as benchmarks/gate/reached.py takes it. */
(function () {
  "use strict";

  var limits = { many: 100, untold: 0.07, most: 0.99, minEffect: 0.02, spreadFactor: 3 };
  var CONTROL = "eager";
  var MOVED = ["regressed", "improved", "unstable"];
  var SAME_FILES = "every file that it depends on says the same in both commits";

  /** How much further than the others, and than not at all, a time moved: a log-ratio above 0. */
  function further(ratio, driftRemoved, others) {
    var own = Math.log(ratio);
    var dividedOut = driftRemoved && CONTROL in others ? others[CONTROL] : 0;
    var moves = [0].concat(
      Object.keys(others).map(function (name) {
        return others[name] - dividedOut;
      })
    );
    return Math.max(own - Math.max.apply(null, moves), Math.min.apply(null, moves) - own, 0);
  }

  /** What 99 % of those that cannot have changed stayed within, where they are many. */
  function most(values) {
    if (values.length < limits.many) {
      return Math.log1p(limits.untold);
    }
    var sorted = values.slice().sort(function (a, b) {
      return a - b;
    });
    var at = limits.most * (sorted.length - 1);
    var low = Math.floor(at);
    var high = Math.min(low + 1, sorted.length - 1);
    var found = sorted[low] + (sorted[high] - sorted[low]) * (at - low);
    return Math.max(Math.log1p(limits.minEffect), found);
  }

  function percent(log) {
    return (100 * Math.expm1(log)).toFixed(1) + " %";
  }

  function say(one, verdict, reason) {
    one.said = Object.assign({}, one.said, { verdict: verdict, reason: reason });
  }

  function beyond(one, limit) {
    var slower = one.said.verdict === "regressed";
    if ((slower || one.said.verdict === "improved") && one.further <= limit) {
      say(
        one,
        slower ? "undecided" : "pass",
        (slower ? "slower" : "faster") + " by more than the noise of its samples, but only by " +
          percent(one.further) + " more than other implementations of the case, where " +
          percent(limit) + " may be chance: time both commits beside each other, with --measure"
      );
    }
  }

  function inWords(suite, count, limit) {
    var words = (count > 1 ? count + " cases" : "1 case") + " of " + suite +
      " cannot have changed, by the files that they depend on";
    return count < limits.many
      ? words
      : words + "; 99 % of them moved by at most " + percent(limit) +
          " more than other implementations did, and what did change has to move further";
  }

  /** Looks again at cases with a verdict by their samples; tells how far moved what cannot have
      changed. `known.reached` says whether one can have, `known.noise` the variance of its ratio. */
  function judge(cases, known) {
    var timed = cases.filter(function (one) {
      return one.said.ratio > 0 && one.said.ratio < Infinity;
    });
    var suites = [];
    timed.forEach(function (one) {
      one.further = further(one.said.ratio, one.test.driftRemoved, one.others);
      if (suites.indexOf(one.suite) < 0) {
        suites.push(one.suite);
      }
    });
    var notes = [];
    suites.sort().forEach(function (suite) {
      var some = timed.filter(function (one) {
        return one.suite === suite;
      });
      var still = some.filter(function (one) {
        return !known.reached(one);
      });
      var limit = most(
        still.map(function (one) {
          return one.further;
        })
      );
      some.forEach(function (one) {
        if (known.reached(one)) {
          beyond(one, Math.max(limit, limits.spreadFactor * Math.sqrt(known.noise(one))));
        } else if (MOVED.indexOf(one.said.verdict) >= 0) {
          say(one, "pass", SAME_FILES + ": the measurement moved");
        }
      });
      if (still.length) {
        notes.push(inWords(suite, still.length, limit));
      }
    });
    return notes;
  }

  /** Where the machine changed, a slower time is no regression. */
  function withoutTimesOf(suite, cases) {
    cases.forEach(function (one) {
      if (one.suite === suite && one.said.verdict === "regressed") {
        say(one, "undecided", "slower, but so was what did not change: the machine changed");
      }
    });
  }

  /** What `judge` is told, by the files code and noise/MACHINE; `noise` may be null. */
  function knownOf(code, noise, base, head) {
    var columns = window.KERNL_COLUMNS;
    var of = {};
    Object.keys(code).forEach(function (suite) {
      of[suite] = { names: code[suite].names, numbers: columns.unpack(code[suite].of) };
    });
    var variances = noise ? columns.unpack(noise.kernels) : [];
    return {
      reached: function (one) {
        var suite = of[one.suite];
        var name = suite ? suite.names.indexOf(one.name) : -1;
        if (name < 0) {
          return true;
        }
        var numbers = [base, head].map(function (commit) {
          return suite.numbers[commit * suite.names.length + name];
        });
        return !numbers[0] || numbers[0] !== numbers[1];
      },
      noise: function (one) {
        return (one.suite === "kernels" && variances[one.at]) || 0;
      },
    };
  }

  window.KERNL_REACHED = {
    judge: judge, withoutTimesOf: withoutTimesOf, knownOf: knownOf, limits: limits,
  };
})();
