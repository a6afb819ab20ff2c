/* Judges any two commits from the statistics of their samples (dashboards/data/evidence.py), as
   benchmarks/compare.py judges the samples themselves. Its names and its order are kept.

   An Evidence is {count, mean, variance, spread, residualMean, residualVariance, residualSpread};
   a number that is not known is NaN, null or absent.

   Formulae are named by their numbers in the NIST Digital Library of Mathematical Functions,
   https://dlmf.nist.gov. Further sources: B. L. Welch, Biometrika 34 (1947); Y. Benjamini and
   Y. Hochberg, J. R. Statist. Soc. B 57 (1995); W. J. Lentz, Applied Optics 15 (1976), with the
   modification of I. J. Thompson and A. R. Barnett, J. Comput. Phys. 64 (1986). */
(function () {
  "use strict";

  var LIMITS = {
    minSamples: 5,
    minEffect: 0.02,
    spreadFactor: 3.0,
    falseDiscoveryRate: 0.01,
    maxDetectable: 0.05,
    power: 0.8,
    confidence: 0.99,
  };
  var SMALLEST_LOG = 0.019802627296179712; // log1p(minEffect), the same in every browser
  var EPSILON = 2.220446049250313e-16;
  var TINY = 1e-300;

  function known(value) {
    return typeof value === "number" && isFinite(value);
  }

  /* ---- Student's t distribution ---- */

  // What Stirling's series adds to ln Γ(z), 5.11.1; below 1e-17 is left out from z = 16 on.
  function stirling(z) {
    var square = z * z;
    var sum = 1 / 156 / square - 691 / 360360;
    sum = sum / square + 1 / 1188;
    sum = sum / square - 1 / 1680;
    sum = sum / square + 1 / 1260;
    sum = sum / square - 1 / 360;
    return (sum / square + 1 / 12) / z;
  }

  // ln B(a, 1/2) = ln Γ(a) + ln Γ(1/2) - ln Γ(a + 1/2), 5.12.1. The large terms of the two series
  // are subtracted on paper; a small a is first raised by 5.5.1, Γ(z + 1) = z Γ(z).
  function logBeta(a) {
    var raised = 1;
    while (a < 16) {
      raised *= (a + 0.5) / a;
      a += 1;
    }
    var ratio = a * Math.log1p(0.5 / a) + 0.5 * Math.log(a) - 0.5;
    ratio += stirling(a + 0.5) - stirling(a);
    return 0.5 * Math.log(Math.PI) - ratio + Math.log(raised);
  }

  function away(value) {
    return Math.abs(value) < TINY ? TINY : value;
  }

  // The continued fraction of the incomplete beta function, 8.17.22, by Lentz's method: the
  // numerators are those of 8.17.23. It converges fast for x < (a + 1) / (a + b + 2).
  function betaFraction(x, a, b) {
    var ratio = 1;
    var inverse = 0;
    var fraction = 1;
    for (var step = 1; step <= 100000; step += 1) {
      var m = Math.floor(step / 2);
      var k = a + 2 * m;
      var term =
        step % 2 ? (-(a + m) * (a + b + m) * x) / (k * (k + 1)) : (m * (b - m) * x) / ((k - 1) * k);
      inverse = 1 / away(1 + term * inverse);
      ratio = away(1 + term / ratio);
      fraction *= ratio * inverse;
      if (Math.abs(ratio * inverse - 1) < EPSILON) {
        break;
      }
    }
    return 1 / fraction;
  }

  // The logarithm of the chance to exceed t > 0: half of the regularised incomplete beta function
  // I_x(a, b), 8.17.2, at a = degrees / 2, b = 1/2 and x = degrees / (degrees + t²). Near t = 0 it
  // is taken from the other end, 8.17.4.
  function logUpper(t, degrees, beta) {
    var a = degrees / 2;
    var odds = (t / degrees) * t;
    if (odds === Infinity) {
      return degrees * (0.5 * Math.log(degrees) - Math.log(t)) - Math.log(a) - beta - Math.LN2;
    }
    var x = 1 / (1 + odds);
    var rest = odds / (1 + odds);
    var front = -a * Math.log1p(odds) + 0.5 * Math.log(rest) - beta;
    if (x < (a + 1) / (a + 2.5)) {
      return front - Math.log(a) + Math.log(betaFraction(x, a, 0.5)) - Math.LN2;
    }
    return Math.log1p(-2 * Math.exp(front) * betaFraction(rest, 0.5, a)) - Math.LN2;
  }

  /** P(T > t) of Student's distribution; the degrees of freedom need not be whole. */
  function survival(t, degrees) {
    if (isNaN(t) || !(degrees > 0) || degrees === Infinity) {
      return NaN;
    }
    if (t === 0 || Math.abs(t) === Infinity) {
      return t === 0 ? 0.5 : t > 0 ? 0 : 1;
    }
    var upper = Math.exp(logUpper(Math.abs(t), degrees, logBeta(degrees / 2)));
    return t > 0 ? upper : 1 - upper;
  }

  /** The t with P(T > t) = chance. */
  function quantile(chance, degrees) {
    if (!(chance >= 0 && chance <= 1) || !(degrees > 0) || degrees === Infinity) {
      return NaN;
    }
    if (chance > 0.5) {
      return -quantile(1 - chance, degrees);
    }
    if (chance === 0.5 || chance === 0) {
      return chance ? 0 : Infinity;
    }
    var wanted = Math.log(chance);
    var beta = logBeta(degrees / 2);
    var t = 1;
    var found = logUpper(t, degrees, beta);
    while (found > wanted) {
      t *= 2;
      found = logUpper(t, degrees, beta);
    }
    // Newton's method on ln P over ln t, which is concave and falls: from the right of the root it
    // comes down to it and never passes it.
    for (var step = 0; step < 200; step += 1) {
      var logDensity =
        -0.5 * (degrees + 1) * Math.log1p((t / degrees) * t) - 0.5 * Math.log(degrees) - beta;
      var slope = -t * Math.exp(logDensity - found);
      var change = (wanted - found) / slope;
      t *= Math.exp(change);
      if (Math.abs(change) < 1e-14) {
        break;
      }
      found = logUpper(t, degrees, beta);
      if (Math.abs(found - wanted) < 4 * EPSILON * Math.abs(wanted)) {
        break;
      }
    }
    return t;
  }

  /* ---- words, as Python writes numbers ---- */

  // A half goes to the even digit in Python and up in JavaScript.
  function halfDown(exact, places) {
    return new RegExp("\\.\\d{" + (places - 1) + "}[02468]50*(e|$)").test(exact);
  }

  function oneDecimal(value) {
    var exact = value.toFixed(60);
    return halfDown(exact, 1) ? exact.slice(0, exact.indexOf(".") + 2) : value.toFixed(1);
  }

  /** A number as Python's format "g" writes it, with so many digits (6 where nothing is said). */
  function general(value, digits) {
    if (!isFinite(value) || value === 0) {
      var word = isNaN(value) ? "nan" : value === 0 ? "0" : "inf";
      return (value < 0 || 1 / value === -Infinity ? "-" : "") + word;
    }
    digits = digits || 6;
    var exact = value.toExponential(60);
    var written = value.toExponential(digits - 1);
    if (halfDown(exact, digits - 1)) {
      written = exact.slice(0, exact.indexOf(".") + digits) + exact.slice(exact.indexOf("e"));
    }
    var exponent = Number(written.split("e")[1]);
    if (exponent >= -4 && exponent < digits) {
      var plain = Number(written).toFixed(digits - 1 - exponent);
      return plain.indexOf(".") < 0 ? plain : plain.replace(/\.?0+$/, "");
    }
    var sign = exponent < 0 ? "-" : "+";
    var power = String(Math.abs(exponent));
    var mantissa = written.split("e")[0].replace(/\.0+$|(\.\d*?)0+$/, "$1");
    return mantissa + "e" + sign + (power.length < 2 ? "0" : "") + power;
  }

  function percent(value) {
    return value < 10 ? oneDecimal(100 * value) + " %" : general(value, 3) + " times";
  }

  /* ---- one case ---- */

  function problemOf(side, evidence) {
    if (evidence.count < LIMITS.minSamples) {
      return (
        side + " has " + evidence.count + " samples, at least " + LIMITS.minSamples + " are needed"
      );
    }
    return known(evidence.mean) ? "" : side + " has a sample that is not a positive finite time";
  }

  // The difference of two means: its standard error and its Welch-Satterthwaite degrees of freedom.
  function errorOf(baseVariance, headVariance, base, head) {
    var parts = [baseVariance / base.count, headVariance / head.count];
    var total = parts[0] + parts[1];
    if (total === 0) {
      return { error: 0, degrees: base.count + head.count - 2 };
    }
    var old = parts[0] / total;
    var young = parts[1] / total;
    var inverse = (old * old) / (base.count - 1) + (young * young) / (head.count - 1);
    return { error: Math.sqrt(total), degrees: 1 / inverse };
  }

  /** As compare_samples, of two Evidence. */
  function test(base, head) {
    var problem = problemOf("base", base) || problemOf("head", head);
    if (problem) {
      return {
        logEffect: NaN, standardError: NaN, degrees: NaN, threshold: NaN, pSlower: NaN,
        pFaster: NaN, driftRemoved: false, problem: problem,
      };
    }
    var welch = errorOf(base.variance, head.variance, base, head);
    var removed = false;
    if (known(base.residualMean) && known(head.residualMean)) {
      var residual = errorOf(base.residualVariance, head.residualVariance, base, head);
      removed = residual.error < welch.error;
      welch = removed ? residual : welch;
    }
    var effect = removed ? head.residualMean - base.residualMean : head.mean - base.mean;
    var spread = removed
      ? Math.max(base.residualSpread, head.residualSpread)
      : Math.max(base.spread, head.spread);
    var t = effect === 0 ? 0 : effect / welch.error;
    return {
      logEffect: effect,
      standardError: welch.error,
      degrees: welch.degrees,
      threshold: Math.max(SMALLEST_LOG, LIMITS.spreadFactor * spread),
      pSlower: survival(t, welch.degrees),
      pFaster: survival(-t, welch.degrees),
      driftRemoved: removed,
      problem: "",
    };
  }

  /* ---- all cases together ---- */

  // The p-values as Benjamini and Hochberg correct them, in the order given.
  function corrected(chances) {
    var order = chances.map(function (_, index) {
      return index;
    });
    order.sort(function (one, other) {
      return chances[one] - chances[other];
    });
    var found = new Array(chances.length);
    var least = 1;
    for (var rank = chances.length; rank >= 1; rank -= 1) {
      var index = order[rank - 1];
      least = Math.min(least, chances[index] * (chances.length / rank));
      found[index] = least;
    }
    return found;
  }

  // The smallest log effect that is found with the wanted power, were it the only one.
  function detectable(one, cases) {
    var needed = quantile(LIMITS.falseDiscoveryRate / cases, one.degrees) * one.standardError;
    var margin = quantile(1 - LIMITS.power, one.degrees) * one.standardError;
    return Math.max(one.threshold, needed) + margin;
  }

  function exp(value) {
    return value < 700 ? Math.exp(value) : Infinity;
  }

  function judged(one, slower, faster, smallest) {
    var halfWidth = quantile((1 - LIMITS.confidence) / 2, one.degrees) * one.standardError;
    var limit = percent(Math.expm1(Math.min(one.threshold, 700)));
    var drift = one.driftRemoved ? ", after eager's drift was divided out" : "";
    var verdict = "pass";
    var reason = "no change above noise and the " + limit + " limit of this case" + drift;
    if (slower || faster) {
      verdict = slower ? "regressed" : "improved";
      reason =
        (slower ? "slower" : "faster") +
        (" by more than noise and the " + limit + " limit of this case" + drift);
    } else if (smallest > LIMITS.maxDetectable) {
      verdict = "unstable";
      reason =
        "too noisy: only changes above " + percent(smallest) + " would be found, " +
        percent(LIMITS.maxDetectable) + " is allowed" + drift;
    }
    return {
      ratio: exp(one.logEffect),
      low: exp(one.logEffect - halfWidth),
      high: exp(one.logEffect + halfWidth),
      verdict: verdict,
      reason: reason,
    };
  }

  function nothing(verdict, reason) {
    return { ratio: NaN, low: NaN, high: NaN, verdict: verdict, reason: reason };
  }

  /** As decide, of the tests of all cases that are judged together; in their order. */
  function decide(tests) {
    var family = tests.filter(function (one) {
      return !one.problem;
    });
    function small(field) {
      var chances = corrected(
        family.map(function (one) {
          return one[field];
        })
      );
      return chances.map(function (chance) {
        return chance <= LIMITS.falseDiscoveryRate;
      });
    }
    var slower = small("pSlower");
    var faster = small("pFaster");
    var index = -1;
    return tests.map(function (one) {
      if (one.problem) {
        return nothing("unstable", one.problem);
      }
      index += 1;
      return judged(
        one,
        slower[index] && one.logEffect > one.threshold,
        faster[index] && -one.logEffect > one.threshold,
        exp(detectable(one, family.length)) - 1
      );
    });
  }

  /* ---- exact counts ---- */

  function number(value) {
    return typeof value === "number" ? value : NaN;
  }

  /** As compare_counts: any difference is a change. A value that is not known is NaN or null. */
  function counts(base, head, lowerIsBetter) {
    var sides = [["base", number(base)], ["head", number(head)]];
    var absent = sides.filter(function (side) {
      return isNaN(side[1]);
    });
    if (absent.length) {
      var names = absent.map(function (side) {
        return side[0];
      });
      return nothing("missing", "no value for " + names.join(" and "));
    }
    var wrong = sides.filter(function (side) {
      return side[1] < 0 || side[1] === Infinity;
    })[0];
    if (wrong) {
      var what = wrong[0] + " is " + general(wrong[1]);
      return nothing("unstable", what + ", which is not a finite number ≥ 0: measure it again");
    }
    var ratio = head === base ? 1 : base === 0 ? Infinity : head / base;
    var verdict = head > base === Boolean(lowerIsBetter) ? "regressed" : "improved";
    var reason = (head > base ? "more" : "less") + " than before";
    if (head === base) {
      verdict = "pass";
      reason = "equal";
    }
    return { ratio: ratio, low: ratio, high: ratio, verdict: verdict, reason: reason };
  }

  window.KERNL_VERDICTS = {
    limits: LIMITS,
    test: test,
    decide: decide,
    counts: counts,
    survival: survival,
    quantile: quantile,
    general: general,
  };
})();
