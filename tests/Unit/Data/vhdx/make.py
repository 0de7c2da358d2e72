#!/usr/bin/env python3
"""Makes the golden VHDX images that no program at hand makes, from [MS-VHDX] alone. Writes *.vhdx.gz beside itself."""
import gzip, os, struct, uuid

MIB, SECTOR = 1 << 20, 4096
BAT_ID, METADATA_ID = "2DC27766-F623-4200-9D64-115E9BFD4A08", "8B7CA206-4790-4B9A-B8FE-575F050F886E"
PARAMETERS, SIZE, DISK_ID = "CAA16737-FA36-4D43-B3B6-33F0AA44E76B", "2FA54224-CD1B-4876-B211-5DBED83BF4B8", "BECA12AB-B2E6-4523-93EF-C309E000C746"
LOGICAL, PHYSICAL, LOCATOR = "8141BF1D-A96F-4709-BA47-F233A8FAAB5F", "CDA348C7-445D-4471-9CC9-E9885251C556", "A8D35F2D-B30B-454D-ABF7-D3D84834AB0C"
LOG_AT, METADATA_AT, BAT_AT, DATA_AT = MIB, 2 * MIB, 3 * MIB, 4 * MIB
TABLE = []
for i in range(256):
    for _ in range(8):
        i = (i >> 1) ^ 0x82F63B78 if i & 1 else i >> 1
    TABLE.append(i)


def crc(data):
    value = 0xFFFFFFFF
    for byte in data:
        value = TABLE[(value ^ byte) & 255] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def guid(text):
    return uuid.UUID(text).bytes_le


def number(n):
    return str(uuid.UUID(int=n))


def put(file, at, data):
    if len(file) < at + len(data):
        file.extend(bytes(at + len(data) - len(file)))
    file[at:at + len(data)] = data


def sealed(data, at=4):
    data = bytearray(data)
    struct.pack_into("<I", data, at, crc(data))
    return bytes(data)


def pattern(block, sector, size):
    return bytes([(block * 7 + sector) % 251 + 1]) * size


def header(sequence, log_guid, data_guid, log_length):
    fields = b"head" + bytes(4) + struct.pack("<Q", sequence) + guid(number(1)) + guid(data_guid) + guid(log_guid)
    return sealed((fields + struct.pack("<HHIQ", 0, 1, log_length, LOG_AT)).ljust(SECTOR, b"\0"))


def image(size, block, logical, bat, data_guid, flags=0, locator=None, log_guid=number(0), user_item=False):
    file = bytearray()
    put(file, 0, b"vhdxfile" + "made by hand".encode("utf-16le"))
    put(file, 64 << 10, header(9, log_guid, data_guid, MIB))
    put(file, 128 << 10, header(8, number(0), number(77), MIB))
    entries = b"".join(guid(i) + struct.pack("<QII", at, MIB, 1) for i, at in ((BAT_ID, BAT_AT), (METADATA_ID, METADATA_AT)))
    table = sealed((b"regi" + bytes(4) + struct.pack("<II", 2, 0) + entries).ljust(64 << 10, b"\0"))
    put(file, 192 << 10, table)
    put(file, 256 << 10, table)
    items = [(PHYSICAL, 6, struct.pack("<I", 4096)), (LOGICAL, 6, struct.pack("<I", logical)), (DISK_ID, 6, guid(number(42))),
             (SIZE, 6, struct.pack("<Q", size)), (PARAMETERS, 4, struct.pack("<II", block, flags))]
    if locator:
        items.append((LOCATOR, 4, locator))
    if user_item:
        items.append((number(5), 1, b""))
        items.append((number(6), 3, b"a user's item"))
    at, entries = 70001, b""
    for item, flag, data in items:
        entries += guid(item) + struct.pack("<IIII", at if data else 0, len(data), flag, 0)
        put(file, METADATA_AT + at, data)
        at += len(data) + 13 if data else 0
    put(file, METADATA_AT, (b"metadata" + struct.pack("<HH", 0, len(items)) + bytes(20) + entries).ljust(64 << 10, b"\0"))
    put(file, BAT_AT, b"".join(struct.pack("<Q", e) for e in bat))
    put(file, DATA_AT - 1, b"\0")
    return file


def parent_locator(values):
    at, table, text = 20 + 12 * len(values), b"", b""
    for key, value in values:
        k, v = key.encode("utf-16le"), value.encode("utf-16le")
        table += struct.pack("<IIHH", at, at + len(k), len(k), len(v))
        text += k + v
        at += len(k) + len(v)
    return guid("B04AEFB7-D19E-4A81-B789-25B8E9445913") + struct.pack("<HH", 0, len(values)) + table + text


def save(name, file):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".gz"), "wb") as out:
        out.write(gzip.compress(bytes(file), 9, mtime=0))


def states():
    """Every state of a block, an offset kept by a discarded one, user items, unaligned items in no order."""
    file = image(6 * MIB + 512, MIB, 512, [5 * MIB | 6, 2, 3, 6 * MIB | 1, 0, 4 * MIB | 6, 7 * MIB | 6], number(100), user_item=True)
    for place, block in ((5, 0), (4, 5), (7, 6)):
        for sector in range(2048):
            put(file, place * MIB + sector * 512, pattern(block, sector, 512))
    put(file, 6 * MIB, b"\xEE" * MIB)  # what the undefined block once was
    save("states.vhdx", file)


def chain():
    """4096-byte logical sectors: block 1 is the parent's, 0 partly, 2 wholly the child's, 3 zero, 4 partly and past the parent's end."""
    parent = image(4 * MIB, 2 * MIB, 4096, [4 * MIB | 6, 6 * MIB | 6], number(200))
    for sector in range(1024):
        put(parent, 4 * MIB + sector * 4096, pattern(50 + sector // 256, sector % 256, 4096))
    save("parent.vhdx", parent)
    ratio = (1 << 23) * 4096 // MIB
    bat = [5 * MIB | 7, 0, 6 * MIB | 6, 2, 7 * MIB | 7]
    linkage = [("absolute_win32_path", "\\\\?\\C:\\disks\\parent.vhdx"), ("parent_linkage2", "{%s}" % number(200)),
               ("parent_linkage", "{%s}" % number(199)), ("relative_path", "..\\gone\\parent.vhdx")]
    child = image(5 * MIB, MIB, 4096, bat, number(201), flags=2, locator=parent_locator(linkage))
    put(child, BAT_AT + ratio * 8, struct.pack("<Q", 4 * MIB | 6))
    put(child, 8 * MIB - 1, b"\0")
    for block, place in ((0, 5), (2, 6), (4, 7)):
        for sector in range(256):
            here = block == 2 or (sector * sector + block) % 5 < 2
            put(child, place * MIB + sector * 4096, pattern(block, sector, 4096) if here else b"\xDD" * 4096)
            if here and block != 2:
                bit = block * 256 + sector
                child[4 * MIB + bit // 8] |= 1 << (bit % 8)
    save("child.vhdx", child)


def log_entry(log_guid, sequence, tail, flushed, last, updates):
    count, data = len(updates), b""
    descriptors = b""
    for offset, update in updates:
        if isinstance(update, int):
            descriptors += b"zero" + bytes(4) + struct.pack("<QQQ", update, offset, sequence)
        else:
            descriptors += b"desc" + update[-4:] + update[:8] + struct.pack("<QQ", offset, sequence)
            data += b"data" + struct.pack("<I", sequence >> 32) + update[8:-4] + struct.pack("<I", sequence & 0xFFFFFFFF)
    size = (64 + len(descriptors) + 4095) // 4096 * 4096
    top = b"loge" + bytes(4) + struct.pack("<IIQII", size + len(data), tail, sequence, count, 0) + guid(log_guid) + struct.pack("<QQ", flushed, last)
    return sealed((top + descriptors).ljust(size, b"\0") + data)


def dirty_log():
    """A log to replay: three entries that run round the end of the ring, an older sequence, one of another session and a torn one."""
    log_guid, ring = number(300), bytearray(MIB)

    def ring_put(at, data):
        for i, byte in enumerate(data):
            ring[(at + i) % MIB] = byte

    file = image(4 * MIB, MIB, 512, [9 * MIB | 6, 0, 0, 0], number(301), log_guid=log_guid)
    put(file, 8 * MIB - 1, b"\0")
    page = lambda entries: b"".join(struct.pack("<Q", e) for e in entries).ljust(4096, b"\0")
    blocks = b"".join(pattern(9, s, 512) for s in range(8))
    old = log_entry(log_guid, 1 << 32, 512 << 10, 4 * MIB, 4 * MIB, [(BAT_AT, page([1, 1, 1, 1]))])
    ring_put(512 << 10, old)
    ring_put(600 << 10, log_entry(number(299), 1 << 40, 600 << 10, 4 * MIB, 4 * MIB, [(BAT_AT, page([3, 3, 3, 3]))]))
    at = tail = MIB - 12288
    sequence = (1 << 32) + 5
    for updates in ([(BAT_AT, page([5 * MIB | 6, 6 * MIB | 6, 0, 0])), (BAT_AT + 8192, 65536)],
                    [(BAT_AT, 4096), (6 * MIB, blocks)],
                    [(BAT_AT, page([4 * MIB | 6, 2, 6 * MIB | 6, 7 * MIB | 6])), (4 * MIB, pattern(3, 3, 4096)), (6 * MIB + 4096, 8192)]):
        entry = log_entry(log_guid, sequence, tail, 8 * MIB, 9 * MIB, updates)
        ring_put(at, entry)
        at, sequence = (at + len(entry)) % MIB, sequence + 1
    torn = bytearray(log_entry(log_guid, sequence, tail, 8 * MIB, 9 * MIB, [(BAT_AT, page([2, 2, 2, 2]))]))
    torn[4096:] = bytes(len(torn) - 4096)
    ring_put(at, torn)
    put(file, LOG_AT, ring)
    put(file, 6 * MIB + 4096, b"\xCC" * 8192)
    put(file, 7 * MIB, pattern(7, 7, MIB))
    save("dirty-log.vhdx", file)


states()
chain()
dirty_log()
