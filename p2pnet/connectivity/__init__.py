"""What a host believes about the network around it, on what evidence, and in what words.

Protocols gather facts and publish them as events; the modules here, all of them pure, turn
facts into verdicts and verdicts into words.
"""
