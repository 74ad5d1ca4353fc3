"""A set of pictures to keyframes of the map: one camera is aligned freely, the others are mounted on it and tell the scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dust3r_ros.alignment import Mount
from dust3r_ros.estimators import Estimator, Tokens
from dust3r_ros.mapping.keyframes.keyframe_map import Growth, KeyframeMap
from dust3r_ros.mapping.keyframes.rig_pairs import Placing, partners_across
from dust3r_ros.mapping.rigs.rig_following import Look, RigFollowing
from dust3r_ros.mapping.rigs.rig_scale import RigScale, Sample, together
from dust3r_ros.mapping.scale.scale_estimator import ScaleEstimator
from dust3r_ros.mapping.stopwatch import Stopwatch
from dust3r_ros.mapping.tracking.tracker import MIN_POINTS, TrackedPose, Tracks, corner_count

SHOWN = 3  # of the leader's newest keyframes, among which another camera is looked for to measure the scale
MEASURED_EVERY = 5  # sets, once the map is metric: a measurement costs as much as a keyframe
MIN_WAITING = 0.4  # overlap with a keyframe that waits for depth, below which a newer one waits instead


@dataclass(frozen=True, eq=False)
class SetGrowth:
    """What a set brought."""

    pilot: str  # the camera that was aligned first
    growth: Growth  # of all its keyframes together
    keyframes: Mapping[str, int]  # by camera


class RigGrowth:
    """Of one map."""

    def __init__(self, keyframe_map: KeyframeMap, following: RigFollowing, estimator: Estimator, scale: ScaleEstimator) -> None:
        self._map, self._following, self._estimator, self._scale = keyframe_map, following, estimator, scale
        self._rig_scale = RigScale(estimator)
        self._sets = 0

    def pilot(self, looks: Mapping[str, Look], tracks: Mapping[str, Tracks]) -> str | None:
        """The camera that is aligned freely, the others being fixed to it: the leader, or who sees most of what it saw before."""
        if not self._map.exists:
            return self._following.lead if self._following.lead in tracks else None
        placed = {entry.name for index, entry in self._map.window.items() if self._map.keyframe(index) is not None}
        able = [name for name in self._following.agreeing if corner_count(looks[name].grey) >= MIN_POINTS]
        return max(able, key=lambda name: (name in placed, name == self._following.lead, len(tracks[name])), default=None)

    def grow(
        self, pilot: str, looks: Mapping[str, Look], tracks: Mapping[str, Tracks], tracked: TrackedPose | None, stopwatch: Stopwatch
    ) -> SetGrowth | None:
        """A keyframe of each camera that sees something; None, and the map has not grown, if the pilot finds no depth or place."""
        tokens = self.encoded(looks[pilot], stopwatch)
        growth = self._map.grow(looks[pilot].frame.stamp, tokens, stopwatch, self._freely(pilot, tokens, tracked))
        if growth is None:
            return None
        self._sets += 1
        grown = SetGrowth(pilot, growth, {pilot: growth.index})
        others = [name for name, look in looks.items() if name != pilot and corner_count(look.grey) >= MIN_POINTS]
        measures = pilot == self._following.lead and self._scale.config.source in ("auto", "rig")
        measures = measures and (not self._following.mounted or self._sets % MEASURED_EVERY == 0)
        if not measures and not self._following.mounted:
            return grown
        seen = {name: self.encoded(looks[name], stopwatch) for name in others}
        if measures:
            with stopwatch.time("scale"):
                self._measure_scale(growth.index, seen)
        if self._following.mounted:
            for name, own in seen.items():
                overlap = tracks[name].overlap if name in tracks else 0.0
                grown = self._join(grown, name, own, looks[name], overlap, stopwatch)
        return grown

    def encoded(self, look: Look, stopwatch: Stopwatch) -> Tokens:
        with stopwatch.time("encode"):
            return self._estimator.encode(look.frame.image, look.camera)

    # ---- how -------------------------------------------------------------------------------------------------------------------------

    def _freely(self, pilot: str, tokens: Tokens, tracked: TrackedPose | None) -> Placing:
        """Paired with its own keyframes, or, where there are none (it was found by another's), with those that show what it sees."""
        own, pose = self._own_partners(pilot), self._following.pose_in_map(tracked)
        if own or pose is None:
            return Placing(pilot, own)
        known = [k for index in self._map.window if (k := self._map.keyframe(index)) is not None]
        return Placing(pilot, partners_across(tokens.camera, pose @ self._following.rig.between(pilot, self._following.lead), known, []))

    def _own_partners(self, name: str) -> tuple[int, ...]:
        """Of the same camera, as the scene graph says."""
        own = [index for index, entry in self._map.window.items() if entry.name == name]
        return tuple(i for i, _ in self._map.graph.new_pairs(own, -1))

    def _join(self, grown: SetGrowth, name: str, tokens: Tokens, look: Look, overlap: float, stopwatch: Stopwatch) -> SetGrowth:
        """Another camera's keyframe of the same moment, where the rig has it: paired with its own, and with others that see the same.

        `overlap`: share of the points of its last keyframe that it still sees.
        """
        on = grown.keyframes[grown.pilot]
        mount = Mount(on, self._following.rig.between(name, grown.pilot))
        pose = self._map.poses[on] @ mount.pose
        known = [k for index in self._map.window if (k := self._map.keyframe(index)) is not None]
        now = set(grown.keyframes.values())
        across = partners_across(
            tokens.camera, pose, [k for k in known if k.index in now], [k for k in known if k.index not in now and k.name != name]
        )
        placing = Placing(name, (*self._own_partners(name), *across), frozenset(across), mount)
        added = self._map.grow(look.frame.stamp, tokens, stopwatch, placing)
        if added is None and overlap < MIN_WAITING and not any(k.name == name for k in known):  # the next may look more like this one
            added = self._map.grow(look.frame.stamp, tokens, stopwatch, replace(placing, partners=()))
        if added is None:
            return grown
        revised = {keyframe.index: keyframe for keyframe in (*grown.growth.revised, *added.revised)}
        whole = replace(
            grown.growth,
            pairs=(*grown.growth.pairs, *added.pairs),
            revised=tuple(revised[index] for index in sorted(revised)),
            loops=(*grown.growth.loops, *added.loops),
        )
        return SetGrowth(grown.pilot, whole, {**grown.keyframes, name: added.index})

    def _measure_scale(self, index: int, seen: Mapping[str, Tokens]) -> None:
        leader, samples = self._map.keyframe(index), list[Sample]()
        if leader is None:
            return
        window = self._map.window
        for name, tokens in seen.items():
            shown = [n for n, entry in window.items() if entry.name != name and self._map.keyframe(n) is not None][-SHOWN:]
            pictures = [(keyframe, window[n].tokens) for n in shown if (keyframe := self._map.keyframe(n)) is not None]
            mount = self._following.rig.between(name, self._following.lead)
            samples += self._rig_scale.measure(mount, name, tokens, leader, pictures, self._map.poses)
        sample = together(samples)
        if sample is not None:
            self._scale.add_rig(index, sample.ratio * self._map.units.get(index, 1.0), sample.sigma)
