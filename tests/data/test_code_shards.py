from vilau_hf.data.code_shards import code_dtype


def test_code_dtype_is_the_smallest_type():
    for size, name in ((24, "uint8"), (256, "uint8"), (257, "uint16"), (16384, "uint16"), (65537, "uint32")):
        assert code_dtype(size) == name
