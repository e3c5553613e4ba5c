"""Citations by what was run: statistics, selection, algorithms, ways of adaptation, libraries. Facts, no code.

Addresses are left out on purpose (a report loads nothing and names no host); DOI and arXiv number find every entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """One entry of a bibliography.

    Parameters
    ----------
    key : str
        Of the BibTeX entry.
    kind : str
        ``article``, ``inproceedings``, ``book``, ``misc``.
    short : str
        As it is cited in the text.
    fields : mapping of str to str
    """

    key: str
    kind: str
    short: str
    fields: Mapping[str, str]

    def bibtex(self) -> str:
        """The entry as BibTeX."""
        lines = [f"  {name} = {{{value}}}," for name, value in self.fields.items()]
        return "\n".join([f"@{self.kind}{{{self.key},", *lines, "}"])


def _article(key: str, short: str, author: str, title: str, journal: str, year: int, **more: str) -> Reference:
    return Reference(
        key, "article", short, {"author": author, "title": title, "journal": journal, "year": str(year), **more}
    )


def _talk(key: str, short: str, author: str, title: str, where: str, year: int, **more: str) -> Reference:
    fields = {"author": author, "title": title, "booktitle": where, "year": str(year), **more}
    return Reference(key, "inproceedings", short, fields)


STATISTICS: dict[str, Reference] = {
    "phase": _article(
        "prichard1994", "Prichard & Theiler 1994", "Prichard, Dean and Theiler, James",
        "Generating surrogate data for time series with several simultaneously measured variables",
        "Physical Review Letters", 1994, volume="73", pages="951--954",
    ),
    "permutation": _article(
        "phipson2010", "Phipson & Smyth 2010", "Phipson, Belinda and Smyth, Gordon K.",
        "Permutation P-values should never be zero: calculating exact P-values when permutations are randomly drawn",
        "Statistical Applications in Genetics and Molecular Biology", 2010, volume="9", pages="Article 39",
    ),
    "holm": _article(
        "holm1979", "Holm 1979", "Holm, Sture", "A simple sequentially rejective multiple test procedure",
        "Scandinavian Journal of Statistics", 1979, volume="6", pages="65--70",
    ),
    "maximum": Reference(
        "westfall1993", "book", "Westfall & Young 1993",
        {"author": "Westfall, Peter H. and Young, S. Stanley", "title": "Resampling-Based Multiple Testing",
         "publisher": "Wiley", "year": "1993"},
    ),
    "welch": _article(
        "welch1947", "Welch 1947", "Welch, B. L.",
        "The generalization of Student's problem when several different population variances are involved",
        "Biometrika", 1947, volume="34", pages="28--35",
    ),
    "ranks": _article(
        "demsar2006", "Demšar 2006", "Dem{\\v{s}}ar, Janez",
        "Statistical comparisons of classifiers over multiple data sets", "Journal of Machine Learning Research", 2006,
        volume="7", pages="1--30",
    ),
    "selection": _talk(
        "gulrajani2021", "Gulrajani & Lopez-Paz 2021", "Gulrajani, Ishaan and Lopez-Paz, David",
        "In search of lost domain generalization", "International Conference on Learning Representations", 2021,
        eprint="2007.01434",
    ),
    "effective": _article(
        "afyouni2019", "Afyouni et al. 2019", "Afyouni, Soroosh and Smith, Stephen M. and Nichols, Thomas E.",
        "Effective degrees of freedom of the Pearson's correlation coefficient under autocorrelation",
        "NeuroImage", 2019, volume="199", pages="609--625",
    ),
}  # fmt: skip

ALGORITHMS: dict[str, Reference] = {
    "erm": Reference(
        "vapnik1998", "book", "Vapnik 1998",
        {"author": "Vapnik, Vladimir N.", "title": "Statistical Learning Theory", "publisher": "Wiley", "year": "1998"},
    ),
    "coral": _talk(
        "sun2016", "Sun & Saenko 2016", "Sun, Baochen and Saenko, Kate",
        "Deep CORAL: Correlation alignment for deep domain adaptation", "ECCV Workshops", 2016, eprint="1607.01719",
    ),
    "mmd": _talk(
        "li2018mmd", "Li et al. 2018", "Li, Haoliang and Pan, Sinno Jialin and Wang, Shiqi and Kot, Alex C.",
        "Domain generalization with adversarial feature learning", "CVPR", 2018,
    ),
    "groupdro": _talk(
        "sagawa2020", "Sagawa et al. 2020",
        "Sagawa, Shiori and Koh, Pang Wei and Hashimoto, Tatsunori B. and Liang, Percy",
        "Distributionally robust neural networks for group shifts",
        "International Conference on Learning Representations", 2020, eprint="1911.08731",
    ),
    "irm": Reference(
        "arjovsky2019", "misc", "Arjovsky et al. 2019",
        {"author": "Arjovsky, Martin and Bottou, L{\\'e}on and Gulrajani, Ishaan and Lopez-Paz, David",
         "title": "Invariant risk minimization", "year": "2019", "eprint": "1907.02893"},
    ),
    "vrex": _talk(
        "krueger2021", "Krueger et al. 2021", "Krueger, David and others",
        "Out-of-distribution generalization via risk extrapolation (REx)",
        "International Conference on Machine Learning", 2021, eprint="2003.00688",
    ),
    "dann": _article(
        "ganin2016", "Ganin et al. 2016", "Ganin, Yaroslav and others",
        "Domain-adversarial training of neural networks", "Journal of Machine Learning Research", 2016,
        volume="17", pages="1--35",
    ),
    "mixup": _talk(
        "zhang2018", "Zhang et al. 2018",
        "Zhang, Hongyi and Cisse, Moustapha and Dauphin, Yann N. and Lopez-Paz, David",
        "mixup: Beyond empirical risk minimization", "International Conference on Learning Representations", 2018,
        eprint="1710.09412",
    ),
    "mixstyle": _talk(
        "zhou2021", "Zhou et al. 2021", "Zhou, Kaiyang and Yang, Yongxin and Qiao, Yu and Xiang, Tao",
        "Domain generalization with MixStyle", "International Conference on Learning Representations", 2021,
        eprint="2104.02008",
    ),
    "swa": _talk(
        "izmailov2018", "Izmailov et al. 2018", "Izmailov, Pavel and others",
        "Averaging weights leads to wider optima and better generalization",
        "Conference on Uncertainty in Artificial Intelligence", 2018, eprint="1803.05407",
    ),
    "swad": _talk(
        "cha2021", "Cha et al. 2021", "Cha, Junbum and others",
        "SWAD: Domain generalization by seeking flat minima", "Advances in Neural Information Processing Systems", 2021,
        eprint="2102.08604",
    ),
    "norm": _talk(
        "chang2019", "Chang et al. 2019",
        "Chang, Woong-Gi and You, Tackgeun and Seo, Seonguk and Kwak, Suha and Han, Bohyung",
        "Domain-specific batch normalization for unsupervised domain adaptation", "CVPR", 2019, eprint="1906.03950",
    ),
}  # fmt: skip

LIBRARIES: dict[str, Reference] = {
    "numpy": _article("harris2020", "Harris et al. 2020", "Harris, Charles R. and others",
                      "Array programming with NumPy", "Nature", 2020, volume="585", pages="357--362"),
    "scipy": _article("virtanen2020", "Virtanen et al. 2020", "Virtanen, Pauli and others",
                      "SciPy 1.0: fundamental algorithms for scientific computing in Python", "Nature Methods", 2020,
                      volume="17", pages="261--272"),
    "mne": _article("gramfort2013", "Gramfort et al. 2013", "Gramfort, Alexandre and others",
                    "MEG and EEG data analysis with MNE-Python", "Frontiers in Neuroscience", 2013, volume="7",
                    pages="267"),
    "mne-bids": _article("appelhoff2019", "Appelhoff et al. 2019", "Appelhoff, Stefan and others",
                         "MNE-BIDS: Organizing electrophysiological data into the BIDS format and facilitating their "
                         "analysis", "Journal of Open Source Software", 2019, volume="4", pages="1896"),
    "nilearn": _article("abraham2014", "Abraham et al. 2014", "Abraham, Alexandre and others",
                        "Machine learning for neuroimaging with scikit-learn", "Frontiers in Neuroinformatics", 2014,
                        volume="8", pages="14"),
    "torch": _talk("paszke2019", "Paszke et al. 2019", "Paszke, Adam and others",
                   "PyTorch: An imperative style, high-performance deep learning library",
                   "Advances in Neural Information Processing Systems", 2019, eprint="1912.01703"),
    "ray": _talk("moritz2018", "Moritz et al. 2018", "Moritz, Philipp and others",
                 "Ray: A distributed framework for emerging AI applications",
                 "USENIX Symposium on Operating Systems Design and Implementation", 2018, eprint="1712.05889"),
    "pandas": _talk("mckinney2010", "McKinney 2010", "McKinney, Wes",
                    "Data structures for statistical computing in Python", "Python in Science Conference", 2010),
}  # fmt: skip


def algorithm_reference(name: str) -> Reference | None:
    """The citation of an algorithm by the name that recipes use; None where it is ours or unknown."""
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    if plain in ALGORITHMS:
        return ALGORITHMS[plain]
    if "erm" in plain:
        return ALGORITHMS["erm"]
    for key in ("groupdro", "mixstyle", "mixup", "coral", "swad", "swa", "vrex", "norm"):
        if key in plain:
            return ALGORITHMS[key]
    return ALGORITHMS["groupdro"] if plain == "dro" else ALGORITHMS["vrex"] if plain == "rex" else None
