#pragma once
/* Written by make_golden.py; do not edit. */

enum { GOLDEN_WIDTH = 37, GOLDEN_HEIGHT = 21 };

static const struct {
    const char *file;
    int channels, bits;
    const char *sha256;
} golden_decoded[] = {
    {"grey1.png", 1, 8,
     "cbb0e708050950b1dd54739144b019649a5d4ec1a1cee4e63160eddf9cac179e"},
    {"grey1_interlaced.png", 1, 8,
     "cbb0e708050950b1dd54739144b019649a5d4ec1a1cee4e63160eddf9cac179e"},
    {"grey2.png", 1, 8,
     "96c68d0224d9cad5c5f7a766c38fd8ceb88f726617fa9e2213f988b02b171004"},
    {"grey2_interlaced.png", 1, 8,
     "96c68d0224d9cad5c5f7a766c38fd8ceb88f726617fa9e2213f988b02b171004"},
    {"grey4.png", 1, 8,
     "da8a348a68480369046789c22cd42d7775a0144da780427928fbcf73d451af26"},
    {"grey4_interlaced.png", 1, 8,
     "da8a348a68480369046789c22cd42d7775a0144da780427928fbcf73d451af26"},
    {"palette4_interlaced.png", 3, 8,
     "457715c50d06e5b6368287b08328a71c9f003f75ea29290725faa50799d58402"},
    {"grey8.png", 1, 8,
     "737fa48a938db22d7688ceb5067653aac90084460b0958ae5f7ef3c6ccf4863a"},
    {"rgb8.png", 3, 8,
     "1b76ce18c21945fcb85b174a9b6b25ce108bebbeebf59055eb5344f446131fd3"},
    {"grey_alpha8.png", 1, 8,
     "737fa48a938db22d7688ceb5067653aac90084460b0958ae5f7ef3c6ccf4863a"},
    {"rgb_alpha8.png", 3, 8,
     "1b76ce18c21945fcb85b174a9b6b25ce108bebbeebf59055eb5344f446131fd3"},
    {"grey16.png", 1, 16,
     "7eeb069c60a5b54530f8db0a471660617911dff149c3bf3144ef7cb6a95aa79d"},
    {"rgb16.png", 3, 16,
     "e706ce92e2949179105c72560b93fa6ee6a46ac505f38ebc3e0f1730bb3e86f8"},
    {"grey_alpha16.png", 1, 16,
     "7eeb069c60a5b54530f8db0a471660617911dff149c3bf3144ef7cb6a95aa79d"},
    {"rgb_alpha16.png", 3, 16,
     "e706ce92e2949179105c72560b93fa6ee6a46ac505f38ebc3e0f1730bb3e86f8"},
    {"grey.jpg", 1, 8,
     "5d879d3d860926fe9cec27a0736663f9805712a1806e13bc0555035be8cde65c"},
    {"grey_progressive.jpg", 1, 8,
     "5d879d3d860926fe9cec27a0736663f9805712a1806e13bc0555035be8cde65c"},
    {"colour444.jpg", 3, 8,
     "3645ac6401184ad5ad3a777786fcf893ff424b5a625e52ec6faf64ed080700b1"},
    {"colour420.jpg", 3, 8,
     "15c0e5962b4571ed3438a36851ec32d2d416a86f1dc860b6e1d2fdeab151c7dc"},
    {"colour422_progressive.jpg", 3, 8,
     "1db3746591a3252b9f63b713d022d80176a4193931508f51f075e0a99b03f414"},
    {"cmyk.jpg", 3, 8,
     "3a61cca39b27ffa6093996bfd33306cb28d1b926fb26e04e82c0c99df5c4de00"},
};

static const struct {
    unsigned seed;
    int width, height, channels, to_width, to_height;
    const char *sha256;
} golden_resized[] = {
    {1, 224, 224, 1, 224, 224,
     "b46068c83cf90637d88029aa5136c936e79f0bb515f4d90f67b51ee69bd793f4"},
    {2, 300, 200, 1, 28, 28,
     "8b722e4435644209a9d699bc7c26423dbb0a51b005c896d8004ca0f3d384b8c9"},
    {3, 301, 203, 3, 64, 48,
     "87bd4624a9e0c0699600e20e0588981e2958a43886f62e51318beb95909e2f7f"},
    {4, 64, 64, 1, 224, 224,
     "d689b12c80a716189f4805a3d7c2f1c52384eb7713ef24548e85ca4056347bdc"},
    {5, 17, 500, 1, 128, 32,
     "91ba193fa83324a8d7126f80f035f0a48a614ad085977fc49de2087a5f2bf27f"},
    {6, 1000, 33, 3, 100, 400,
     "9a07eadfd5ba9e3d458b47bf065d7b5ebc85063a75fbb07c44a2cdde9cef6ed5"},
    {7, 29, 31, 1, 28, 30,
     "6d891d626a371cee7b6ce97a8820427c896a0d5afd371f82036138840ffc3441"},
    {8, 700, 900, 1, 512, 512,
     "9ac3f28089d210742ec26f326aa1ea1ca91a718a050fe9a9c9eeba5066fba6e4"},
    {9, 64, 700, 3, 64, 224,
     "d1ec3749fd798df5037f4b03cd8a8194ef07a777884f49c5a16b56f613bde50c"},
    {10, 700, 64, 1, 224, 64,
     "b963b7b551430ba43977a5ee2b8582d76b28008eb9ebb452ea8178f7ea26ce19"},
};
