# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""Visual inputs of the language model: finds placeholders, encodes pixels and inserts embeddings."""

from collections.abc import Callable
from typing import cast

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .argument_checks_vilau import as_int64
from .compat_modeling_vilau import torch_compilable_check
from .configuration_vilau import VilaUConfig
from .distributed_vilau import largest_of_ranks
from .modeling_vision_tower import VilaUVisionTower, VilaUVisionTowerOutput
from .outputs_vilau import frames_to_videos, rows_of


class VilaUVisualInputsMixin:
    """Methods of [`VilaUModel`] that turn placeholders, pixels and codes into input embeddings."""

    # set by the model
    config: VilaUConfig
    vision_tower: VilaUVisionTower
    multi_modal_projector: nn.Module
    get_input_embeddings: Callable[[], nn.Embedding]

    @torch.no_grad()
    def get_visual_codes(
        self,
        input_ids: torch.Tensor | None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        codes: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Returns the codes at the placeholders of `input_ids`, and -1 at all other positions.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`): ids with one placeholder for each visual token.
            pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`, *optional*): images in order of their placeholders.
            pixel_values_videos (`torch.Tensor` of shape `(V, F, 3, S, S)`, *optional*): videos in order of their
                placeholders.
            codes (`torch.LongTensor` of shape `(N, L, D)`, *optional*): codes of all images and frames in order of
                their placeholders, instead of pixels.
            inputs_embeds (`torch.Tensor` of shape `(B, T, H)`, *optional*): embeddings of the ids, if `input_ids` is
                `None`.

        Returns:
            `torch.LongTensor` of shape `(B, T, D)`.

        Raises:
            ValueError: if the numbers of placeholders and visual tokens differ, or the shape or range of `codes` is
                wrong.
        """
        is_image, is_video = self._placeholders(input_ids, inputs_embeds)
        if codes is not None:
            if pixel_values is not None or pixel_values_videos is not None:
                raise ValueError("`codes` replace `pixel_values` and `pixel_values_videos`: give one or the other.")
            self.check_codes(codes)
            return self._fill_grid(self._empty_grid(is_image), is_image | is_video, codes, "codes")
        if pixel_values is None and pixel_values_videos is None:
            raise ValueError(
                f"the prompt holds {int((is_image | is_video).sum())} placeholders, but none of `pixel_values`, "
                "`pixel_values_videos` and `codes` is given."
            )
        pixel_codes = self._encode_pixels(pixel_values, pixel_values_videos).codes
        return self._grid_of_pixel_codes(is_image, is_video, pixel_values, pixel_values_videos, pixel_codes)

    def _empty_grid(self, mask: torch.Tensor) -> torch.Tensor:
        """Returns codes `(B, T, D)` of a batch without visual tokens, all -1, for a `mask` `(B, T)` of positions."""
        shape = (*mask.shape, self.config.vision_config.code_depth)
        return torch.full(shape, -1, dtype=torch.long, device=mask.device)

    def _grid_of_pixel_codes(
        self,
        is_image: torch.Tensor,
        is_video: torch.Tensor,
        pixel_values: torch.Tensor | None,
        pixel_values_videos: torch.Tensor | None,
        codes: torch.Tensor,
    ) -> torch.Tensor:
        """Returns codes `(B, T, D)`: `codes` `(N + V * F, L, D)` of the pixels at the placeholders, -1 elsewhere."""
        grid = self._empty_grid(is_image)
        num_images = 0 if pixel_values is None else len(pixel_values)
        for mask, pixels, codes_of_kind, name in (
            (is_image, pixel_values, codes[:num_images], "pixel_values"),
            (is_video, pixel_values_videos, codes[num_images:], "pixel_values_videos"),
        ):
            if pixels is not None:
                grid = self._fill_grid(grid, mask, codes_of_kind, name)
            else:
                self._check_no_placeholders(mask, name)
        return grid

    @staticmethod
    def _check_no_placeholders(mask: torch.Tensor, name: str) -> None:
        """Raises a `ValueError` if there are placeholders in `mask` `(B, T)` but the argument `name` is not given."""
        torch_compilable_check(
            ~mask.any(), lambda: f"the prompt holds {mask.sum()} placeholders of `{name}`, which is not given."
        )

    @torch.no_grad()
    def _encode_pixels(
        self, pixel_values: torch.Tensor | None, pixel_values_videos: torch.Tensor | None, **kwargs: bool | None
    ) -> VilaUVisionTowerOutput:
        """Encodes images `(N, 3, S, S)` and then the frames of videos `(V, F, 3, S, S)`; one may be `None`."""
        given = []
        if pixel_values is not None:
            self.vision_tower.check_pixels(pixel_values)
            given.append(pixel_values)
        if pixel_values_videos is not None:
            self.vision_tower.check_pixels(pixel_values_videos, "pixel_values_videos", "V, F")
            given.append(pixel_values_videos.flatten(0, 1))  # (V * F, 3, S, S)
        # One call for all. If the tower is sharded, its weights are gathered in each call, and all ranks must make
        # the same number of calls.
        return self.vision_tower.encode(torch.cat(given), **kwargs)

    def _join_collective_encode(self, has_pixels: bool, device: torch.device) -> None:
        """Runs a dummy encode if the tower is sharded and only other ranks have pixels, so that collectives match."""
        if largest_of_ranks(int(has_pixels), self.vision_tower) and not has_pixels:
            side = self.config.vision_config.image_size
            with torch.no_grad():
                self.vision_tower.encode(torch.zeros(1, 3, side, side, device=device))

    def _placeholders(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Returns two masks `(B, T)`: where placeholders of images are, and where placeholders of videos are.

        Without ids, a position is a placeholder if its embedding equals that of the placeholder id.
        """
        image_id = self.config.image_token_id
        video_id = self.config.video_token_id
        if input_ids is not None:
            return input_ids == image_id, input_ids == video_id
        if inputs_embeds is None:
            raise ValueError("give exactly one of `input_ids` and `inputs_embeds`.")
        return self._has_embedding_of(image_id, inputs_embeds), self._has_embedding_of(video_id, inputs_embeds)

    def _has_embedding_of(self, token_id: int, inputs_embeds: torch.Tensor) -> torch.Tensor:
        """Returns a mask `(B, T)` of the positions of `inputs_embeds` `(B, T, H)` with the embedding of `token_id`."""
        table = self.get_input_embeddings()
        # an id outside of the vocabulary has no embedding
        if token_id >= table.num_embeddings:
            return torch.zeros(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device)
        return (inputs_embeds == table(torch.tensor(token_id, device=inputs_embeds.device))).all(-1)

    def check_codes(self, codes: torch.Tensor) -> None:
        """Raises a `ValueError` unless `codes` have shape `(N, L, D)` and are in range."""
        vision = self.config.vision_config
        expected = (vision.num_visual_tokens, vision.code_depth)
        codes = as_int64(codes)
        if codes.ndim != 3 or codes.shape[1:] != expected:
            raise ValueError(
                f"`codes` must be integers of shape (N, {expected[0]}, {expected[1]}), got {codes.dtype} of shape "
                f"{tuple(codes.shape)}."
            )
        self.vision_tower.quantizer.check_range(codes)

    def _fill_grid(self, grid: torch.Tensor, mask: torch.Tensor, codes: torch.Tensor, name: str) -> torch.Tensor:
        """
        Returns `grid` `(B, T, D)` with `codes` `(N, L, D)` at the positions of `mask` `(B, T)`.

        Raises a `ValueError` that names the argument `name` if their numbers differ.
        """
        num_tokens = codes.shape[0] * codes.shape[1]
        # masked_scatter silently ignores codes that are left over
        torch_compilable_check(
            mask.sum() == num_tokens,
            lambda: (
                f"`{name}` give {num_tokens} visual tokens ({codes.shape[0]} images or frames of {codes.shape[1]}), "
                f"but the prompt holds {mask.sum()} placeholders."
            ),
        )
        return grid.masked_scatter(mask[..., None], codes.to(grid.device, grid.dtype))

    def embed(self, input_ids: torch.Tensor, visual_codes: torch.Tensor | None = None) -> torch.Tensor:
        """
        Returns the input embeddings `(B, T, H)` of text ids and codes.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`): text ids, a placeholder at each visual position.
            visual_codes (`torch.LongTensor` of shape `(B, T, D)`, *optional*): codes by position, whose embeddings
                replace those of the placeholders.
        """
        is_visual = self.config.is_visual(input_ids)
        # placeholders may be outside the vocabulary, and id 0 is always inside
        embeds = self.get_input_embeddings()(input_ids.masked_fill(is_visual, 0))
        return embeds if visual_codes is None else self.insert_codes(embeds, visual_codes, is_visual)

    def insert_codes(
        self, inputs_embeds: torch.Tensor, visual_codes: torch.Tensor, is_visual: torch.Tensor
    ) -> torch.Tensor:
        """
        Returns `inputs_embeds` with the embeddings of codes at the visual positions.

        Args:
            inputs_embeds (`torch.Tensor` of shape `(B, T, H)`): embeddings of all positions.
            visual_codes (`torch.LongTensor` of shape `(B, T, D)`): codes by position.
            is_visual (`torch.BoolTensor` of shape `(B, T)`): the visual positions.
        """
        embedded = self.embed_codes(visual_codes[is_visual])  # (M, H)
        return inputs_embeds.masked_scatter(
            is_visual[..., None], embedded.to(inputs_embeds.device, inputs_embeds.dtype)
        )

    def embed_codes(self, codes: torch.Tensor) -> torch.Tensor:
        """Returns the input embeddings `(..., H)` of visual tokens with `codes` `(..., D)`."""
        return self.multi_modal_projector(self.vision_tower.quantizer.decode(codes))

    def _embed_pixels(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        pixel_values: torch.Tensor | None,
        pixel_values_videos: torch.Tensor | None,
        **kwargs: bool | None,
    ) -> tuple[torch.Tensor, torch.Tensor, BaseModelOutputWithPooling]:
        """
        Encodes the pixels and inserts their embeddings at the placeholders.

        Exactly one of `input_ids` and `inputs_embeds` must be given.

        Returns:
            The input embeddings `(B, T, H)`, the codes `(B, T, D)`, and the features of images and frames. Codes are
            -1 at text positions. Features have images and then frames in dimension 0.
        """
        is_image, is_video = self._placeholders(input_ids, inputs_embeds)
        # Text is embedded before the projector runs, as in batches without pixels. Ranks with sharded weights gather
        # them at each call of a module, so all must call the modules in the same order.
        embeds = cast(torch.Tensor, inputs_embeds) if input_ids is None else self.embed(input_ids)
        encoded = self._encode_pixels(pixel_values, pixel_values_videos, **kwargs)
        visual_codes = self._grid_of_pixel_codes(is_image, is_video, pixel_values, pixel_values_videos, encoded.codes)
        embedded = self.embed_codes(encoded.codes)  # (N + V * F, L, H), with gradients for the projector
        features = BaseModelOutputWithPooling(
            last_hidden_state=encoded.quantized,
            pooler_output=embedded,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        embedded = embedded.to(embeds.device, embeds.dtype)
        num_images = 0 if pixel_values is None else len(pixel_values)
        embeds = embeds.masked_scatter(is_image[..., None], embedded[:num_images])
        embeds = embeds.masked_scatter(is_video[..., None], embedded[num_images:])
        return embeds, visual_codes, features

    def _call_projector_without_codes(self, inputs_embeds: torch.Tensor) -> torch.Tensor:
        """Returns `inputs_embeds` with equal values, and adds the projector to the autograd graph of a text batch."""
        depth = self.config.vision_config.code_depth
        no_codes = torch.zeros(0, depth, dtype=torch.long, device=inputs_embeds.device)
        return inputs_embeds + self.embed_codes(no_codes).sum().to(inputs_embeds.dtype)


def split_features(
    features: BaseModelOutputWithPooling | None,
    pixel_values: torch.Tensor | None,
    pixel_values_videos: torch.Tensor | None,
) -> tuple[BaseModelOutputWithPooling | None, BaseModelOutputWithPooling | None]:
    """
    Returns the features of images and those of videos, each `None` if there are none.

    Args:
        features ([`BaseModelOutputWithPooling`], *optional*): features with images and then frames in dimension 0.
        pixel_values (`torch.Tensor` of shape `(N, 3, S, S)`, *optional*): the images.
        pixel_values_videos (`torch.Tensor` of shape `(V, F, 3, S, S)`, *optional*): the videos.
    """
    if features is None:
        return None, None
    num_images = 0 if pixel_values is None else len(pixel_values)
    image_outputs = None if pixel_values is None else rows_of(features, slice(0, num_images))
    if pixel_values_videos is None:
        return image_outputs, None
    frames = rows_of(features, slice(num_images, None))
    return image_outputs, frames_to_videos(frames, len(pixel_values_videos))


__all__ = ["VilaUVisualInputsMixin", "split_features"]
