"""Attention of one block by products of whole tiles.

Four products of matrices and one exponential a score, in base two because PyTorch's exp2 takes a quarter of the time of
its exp (AVX-512, torch 2.13). The derivative is that of Dao et al., FlashAttention (arXiv:2205.14135): scores are made
again, and what the softmax's derivative needs of a query is the product of its mixture with the mixture's gradient.

Shape legend: q queries, s keys, H heads, K key-value heads, D head width, g queries of the heads that share keys.
"""

from math import log2

import torch
from torch import Tensor

from outcrop.arithmetic import ONEDNN, multiplying_by

LOG2_E = log2(torch.e)


@multiplying_by(ONEDNN)
def see(
    query_qHD: Tensor, key_sKD: Tensor, value_sKD: Tensor, scale: float, *, is_causal: bool
) -> tuple[Tensor, Tensor]:
    """The mixture [q, H, D] and the log-sum-exps [q, H]; with `is_causal` a query sees the keys up to its own place."""
    kv_heads = key_sKD.shape[1]
    scores_Kgs = _scores(query_qHD, key_sKD, scale, is_causal)
    most_Kg1 = scores_Kgs.amax(-1, keepdim=True)
    scores_Kgs.sub_(most_Kg1).exp2_()
    total_Kg1 = scores_Kgs.sum(-1, keepdim=True)
    mixed_KgD = torch.bmm(scores_Kgs, value_sKD.transpose(0, 1)).div_(total_Kg1)
    sums_Kg1 = most_Kg1.add_(total_Kg1.log2_()).div_(LOG2_E)
    return _by_query(mixed_KgD, len(query_qHD), kv_heads), _by_query(sums_Kg1, len(query_qHD), kv_heads)[..., 0]


@multiplying_by(ONEDNN)
def see_back(
    grad_qHD: Tensor, query_qHD: Tensor, mixed_qHD: Tensor, sums_qH: Tensor, key_sKD: Tensor, value_sKD: Tensor,
    scale: float, *, is_causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of query, key and value; mixture and log-sum-exps are those of everything that the queries see."""
    kv_heads = key_sKD.shape[1]
    share_Kgs = _scores(query_qHD, key_sKD, scale, is_causal)
    share_Kgs.sub_(_by_head((sums_qH * LOG2_E)[..., None], kv_heads)).exp2_()
    grad_KgD = _by_head(grad_qHD, kv_heads)
    d_value_KsD = torch.bmm(share_Kgs.transpose(1, 2), grad_KgD)
    d_scores_Kgs = torch.bmm(grad_KgD, value_sKD.permute(1, 2, 0))
    along_Kg1 = _by_head((grad_qHD * mixed_qHD).sum(-1, keepdim=True), kv_heads)
    d_scores_Kgs.sub_(along_Kg1).mul_(share_Kgs)
    d_query_KgD = torch.bmm(d_scores_Kgs, key_sKD.transpose(0, 1)).mul_(scale)
    d_key_KsD = torch.bmm(d_scores_Kgs.transpose(1, 2), _by_head(query_qHD, kv_heads)).mul_(scale)
    return _by_query(d_query_KgD, len(query_qHD), kv_heads), d_key_KsD.transpose(0, 1), d_value_KsD.transpose(0, 1)


def _scores(query_qHD: Tensor, key_sKD: Tensor, scale: float, is_causal: bool) -> Tensor:
    """Scaled scores in base two [K, g, s]; what may not be seen at minus infinity."""
    kv_heads = key_sKD.shape[1]
    scores_Kgs = torch.bmm(_by_head(query_qHD * (scale * LOG2_E), kv_heads), key_sKD.permute(1, 2, 0))
    if is_causal:
        later_qs = torch.ones(len(query_qHD), len(key_sKD), dtype=torch.bool).triu_(1)
        scores_Kgs.view(kv_heads, len(query_qHD), -1, len(key_sKD)).masked_fill_(later_qs[:, None], -torch.inf)
    return scores_Kgs


def _by_head(heads_qHD: Tensor, kv_heads: int) -> Tensor:
    """[q, H, D] -> [K, q * H / K, D]."""
    return heads_qHD.reshape(len(heads_qHD), kv_heads, -1, heads_qHD.shape[-1]).transpose(0, 1).flatten(1, 2)


def _by_query(heads_KgD: Tensor, queries: int, kv_heads: int) -> Tensor:
    """[K, q * H / K, D] -> [q, H, D]."""
    return heads_KgD.view(kv_heads, queries, -1, heads_KgD.shape[-1]).transpose(0, 1).flatten(1, 2)
