"""`LISTED_TARGETS`, the allow-list of classes and functions that a configuration may name without ``--trust``.

Only complete names are listed. A pattern such as ``torch.*`` would also allow `torch.load` and `torch.hub.load`. A
commit that adds a class of Loopwright to a file under ``conf/`` must also add the class to this list.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_LOOPWRIGHT = """
    TrainingLoop ValidationLoop Checkpointing Precision
    loop.TrainingLoop loop.ValidationLoop
    checkpoint.Checkpointing
    precision.Precision
    models.MLP models.MLPRegressor models.CNN models.GPT models.ViT models.CausalLM models.Supervised
    data.digits data.stdlib_text data.synthetic data.synthetic_regression data.synthetic_tokens
    data.csv data.image_folder data.tensor_file data.Loader data.Splits data.TensorData
    device.Device
    optim.sgd optim.adam optim.adamw
    optim.constant optim.linear optim.warmup_cosine optim.warmup_stable_decay optim.inverse_sqrt optim.step_decay
    callbacks.DetectAnomaly callbacks.OverfitOneBatch callbacks.StopOnNonFinite callbacks.TimeLimit
    callbacks.EarlyStopping callbacks.ExponentialMovingAverage
    callbacks.LearningRateMonitor callbacks.Metrics callbacks.SampleText callbacks.CompressionBaseline
    callbacks.Throughput callbacks.Memory callbacks.DataStall callbacks.Utilisation
    callbacks.GradientNorms callbacks.NoiseScale callbacks.Profile callbacks.Summary
    downstream.EleutherEvalHarness downstream.ByteTokenizer downstream.TokenizerFile
    loggers.ProgressLogger loggers.JSONLinesLogger loggers.CSVLogger
    loggers.TensorBoardLogger loggers.WandbLogger
"""

_LAYERS = """
    AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d
    AlphaDropout AvgPool1d AvgPool2d AvgPool3d BatchNorm1d BatchNorm2d BatchNorm3d Bilinear CELU ChannelShuffle
    CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d
    Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d CosineSimilarity
    Dropout Dropout1d Dropout2d Dropout3d ELU Embedding EmbeddingBag FeatureAlphaDropout Flatten Fold
    FractionalMaxPool2d FractionalMaxPool3d GELU GLU GRU GRUCell GroupNorm Hardshrink Hardsigmoid Hardswish Hardtanh
    Identity InstanceNorm1d InstanceNorm2d InstanceNorm3d LPPool1d LPPool2d LPPool3d LSTM LSTMCell LayerNorm LeakyReLU
    Linear LocalResponseNorm LogSigmoid LogSoftmax MaxPool1d MaxPool2d MaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d
    Mish ModuleDict ModuleList MultiheadAttention PReLU PairwiseDistance PixelShuffle PixelUnshuffle RMSNorm RNN RNNCell
    RReLU ReLU ReLU6 ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d
    SELU Sequential SiLU Sigmoid Softmax Softmax2d Softmin Softplus Softshrink Softsign SyncBatchNorm Tanh Tanhshrink
    Threshold Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder TransformerEncoderLayer
    Unflatten Unfold Upsample UpsamplingBilinear2d UpsamplingNearest2d ZeroPad1d ZeroPad2d ZeroPad3d
"""

_LOSSES = """
    AdaptiveLogSoftmaxWithLoss BCELoss BCEWithLogitsLoss CTCLoss CosineEmbeddingLoss CrossEntropyLoss GaussianNLLLoss
    HingeEmbeddingLoss HuberLoss KLDivLoss L1Loss MSELoss MarginRankingLoss MultiLabelMarginLoss
    MultiLabelSoftMarginLoss MultiMarginLoss NLLLoss PoissonNLLLoss SmoothL1Loss SoftMarginLoss TripletMarginLoss
    TripletMarginWithDistanceLoss
"""

_OPTIMIZERS = """
    ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax LBFGS Muon NAdam RAdam RMSprop Rprop SGD SparseAdam
"""

_SCHEDULERS = """
    ChainedScheduler ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR ExponentialLR LambdaLR LinearLR
    MultiStepLR MultiplicativeLR OneCycleLR PolynomialLR ReduceLROnPlateau SequentialLR StepLR
"""

# Metrics of torchmetrics that compute a number without reading files or loading pretrained networks.
_CLASSIFICATION = """
    BinaryAUROC BinaryAccuracy BinaryAveragePrecision BinaryCalibrationError BinaryCohenKappa BinaryF1Score
    BinaryFBetaScore BinaryHammingDistance BinaryHingeLoss BinaryJaccardIndex BinaryMatthewsCorrCoef BinaryPrecision
    BinaryRecall BinarySpecificity
    MulticlassAUROC MulticlassAccuracy MulticlassAveragePrecision MulticlassCalibrationError MulticlassCohenKappa
    MulticlassF1Score MulticlassFBetaScore MulticlassHammingDistance MulticlassHingeLoss MulticlassJaccardIndex
    MulticlassMatthewsCorrCoef MulticlassPrecision MulticlassRecall MulticlassSpecificity
"""

_REGRESSION = """
    ConcordanceCorrCoef CosineSimilarity ExplainedVariance KLDivergence LogCoshError MeanAbsoluteError
    MeanAbsolutePercentageError MeanSquaredError MeanSquaredLogError MinkowskiDistance PearsonCorrCoef R2Score
    RelativeSquaredError SpearmanCorrCoef SymmetricMeanAbsolutePercentageError TweedieDevianceScore
"""


def _named(prefix: str, names: str) -> frozenset[str]:
    return frozenset(f"{prefix}.{name}" for name in names.split())


LOOPWRIGHT_TARGETS: frozenset[str] = _named("loopwright", _LOOPWRIGHT)

TORCH_TARGETS: frozenset[str] = (
    _named("torch.nn", _LAYERS)
    | _named("torch.nn", _LOSSES)
    | _named("torch.optim", _OPTIMIZERS)
    | _named("torch.optim.lr_scheduler", _SCHEDULERS)
)

METRIC_TARGETS: frozenset[str] = _named("torchmetrics.classification", _CLASSIFICATION) | _named(
    "torchmetrics.regression", _REGRESSION
)

LISTED_TARGETS: frozenset[str] = LOOPWRIGHT_TARGETS | TORCH_TARGETS | METRIC_TARGETS

# Optional packages that define classes in `LISTED_TARGETS`. Each value is the extra that installs the package.
EXTRAS: Mapping[str, str] = MappingProxyType({"torchmetrics": "metrics"})

# Classes of Loopwright that import an optional package when they are used. Each value is the name of the package, and
# the extra that installs the package.
NEEDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "loopwright.downstream.EleutherEvalHarness": ("lm_eval", "eval"),
        "loopwright.downstream.TokenizerFile": ("tokenizers", "lm"),
        "loopwright.loggers.TensorBoardLogger": ("tensorboard", "tensorboard"),
        "loopwright.loggers.WandbLogger": ("wandb", "wandb"),
        "loopwright.models.CausalLM": ("transformers", "lm"),
    }
)
